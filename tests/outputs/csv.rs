//! CSV, read back by its library and by nobody's eyes.

use std::io::{Cursor, Read};

use forge_dispatch::domain::blueprint::{FieldType, SectionKind};
use proptest::prelude::*;
use zip::ZipArchive;

use super::fixture::{Given, Workshop, field, section, texts};

fn costs() -> (
    forge_dispatch::domain::blueprint::Section,
    forge_dispatch::domain::edition::SectionContent,
) {
    section(
        "costs",
        Some("Costs"),
        SectionKind::Repeating,
        vec![
            field("item", Some("=Item"), FieldType::Text),
            field("amount", None, FieldType::Number),
            field("day", Some("Day"), FieldType::Date),
            field("paid", Some("Paid"), FieldType::Boolean),
            field("tags", Some("Tags"), FieldType::MultiSelect(Vec::new())),
        ],
        &[
            r#"{"item":"a, \"b\"\nc","amount":-12345678901234567890.10,"day":"2026-05-01","paid":true,"tags":["x","y"]}"#,
            r#"{"tags":["=x"],"item":"=cmd|' /C calc'!A0","gone":1}"#,
            "{}",
        ],
    )
}

const COSTS: &str = "'=Item,amount,Day,Paid,Tags\r\n\
    \"a, \"\"b\"\"\nc\",-12345678901234567890.10,2026-05-01,true,x; y\r\n\
    '=cmd|' /C calc'!A0,,,,'=x\r\n\
    ,,,,\r\n";

#[tokio::test]
async fn one_section_is_one_file_with_its_titles_and_rows() {
    let (bytes, format) = Workshop::default()
        .bytes(&Given::new(vec![costs()]), "csv")
        .await;
    assert_eq!(format, "csv");
    assert_eq!(String::from_utf8(bytes).unwrap(), COSTS);
}

#[tokio::test]
async fn several_sections_are_a_zip_with_a_file_for_each() {
    let summary = section(
        "sum/../mary",
        None,
        SectionKind::Single,
        vec![field("note", Some("Note"), FieldType::LongText)],
        &[r#"{"note":"all is well"}"#],
    );
    let (bytes, format) = Workshop::default()
        .bytes(&Given::new(vec![summary, costs()]), "csv")
        .await;
    assert_eq!(format, "zip");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut files = Vec::new();
    for place in 0..archive.len() {
        let mut file = archive.by_index(place).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        files.push((file.name().unwrap().into_owned(), text));
    }
    let expected = [
        ("1-sum____mary.csv", "Note\r\nall is well\r\n"),
        ("2-costs.csv", COSTS),
    ];
    let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert_eq!(files, expected);
}

#[tokio::test]
async fn nothing_to_show_is_an_empty_file_or_a_header() {
    let workshop = Workshop::default();
    let (bytes, format) = workshop.bytes(&Given::new(Vec::new()), "csv").await;
    assert_eq!((bytes.len(), &*format), (0, "csv"));
    let (bytes, _) = workshop.bytes(&texts(&[]), "csv").await;
    assert_eq!(bytes, b"text\r\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_is_read_back_and_is_no_formula(
        given in proptest::collection::vec("[=+@'\\t\\r\\n\",;a-]{0,6}|\\PC{0,20}", 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (bytes, _) = runtime.block_on(async {
            Workshop::default().bytes(&texts(&given), "csv").await
        });
        let mut reader = csv::Reader::from_reader(&bytes[..]);
        let read: Vec<String> = reader
            .records()
            .map(|record| record.unwrap()[0].to_owned())
            .collect();
        prop_assert_eq!(read.len(), given.len());
        for (read, given) in read.iter().zip(&given) {
            prop_assert!(!read.starts_with(['=', '+', '-', '@', '\t', '\r']), "{read:?}");
            let bare = read.strip_prefix('\'').unwrap_or(read);
            prop_assert!(read == given || bare == given, "{given:?} became {read:?}");
        }
    }
}
