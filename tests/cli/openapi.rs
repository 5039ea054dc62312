//! `openapi`.

use super::Home;

#[test]
fn the_description_of_the_api_is_printed_without_a_database() {
    let home = Home::new();
    let document = home.json(&["openapi"]);
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/v1/subscriptions"]["post"].is_object());
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}
