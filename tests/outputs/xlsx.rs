//! Workbooks: what stands in their cells is what was given.

use forge_dispatch::domain::blueprint::{FieldType, SectionKind};
use forge_dispatch::outputs::RenderError;
use serde_json::json;

use super::fixture::{Given, Workshop, field, section, texts};
use super::reading::read;

#[tokio::test]
async fn cells_are_what_their_fields_say() {
    let costs = section(
        "costs",
        Some("Costs: 'Q1/Q2'"),
        SectionKind::Repeating,
        vec![
            field("item", Some("=Item"), FieldType::Text),
            field("amount", Some("Amount"), FieldType::Number),
            field("count", Some("Count"), FieldType::Integer),
            field("day", Some("Day"), FieldType::Date),
            field("at", Some("At"), FieldType::Datetime),
            field("paid", Some("Paid"), FieldType::Boolean),
            field("tags", Some("Tags"), FieldType::MultiSelect(Vec::new())),
            field("sum", Some("Sum"), FieldType::Calculated),
        ],
        &[
            r#"{"item":" a <b> & \"c\"\n_x000D_ é😀 ","amount":-12.50,"count":3,"day":"2026-05-01",
                "at":"2026-05-01T11:30:15.250+02:00","paid":true,"tags":["x","y"],"sum":33.333333333333336}"#,
            r#"{"item":"123","amount":12345678901234567890.1,"count":9007199254740993,
                "day":"1850-01-01","at":"soon","paid":false,"tags":[],"sum":"n/a"}"#,
            r#"{"sum":0}"#,
        ],
    );
    let summary = section(
        "summary",
        None,
        SectionKind::Single,
        vec![field("note", Some("Note"), FieldType::LongText)],
        &[r#"{"note":"all is well"}"#],
    );
    let again = section("SUMMARY", None, SectionKind::Repeating, Vec::new(), &[]);
    let given = Given::new(vec![costs, summary, again]);
    let (bytes, format) = Workshop::default().bytes(&given, "xlsx").await;
    assert_eq!(format, "xlsx");
    let sheets = read(&bytes);
    assert_eq!(
        sheets[0]["rows"],
        json!([
            ["=Item", "Amount", "Count", "Day", "At", "Paid", "Tags", "Sum"],
            [
                " a <b> & \"c\"\n_x000D_ é😀 ",
                -12.5,
                3,
                {"yyyy-mm-dd": "2026-05-01T00:00:00"},
                {"yyyy-mm-dd hh:mm:ss": "2026-05-01T09:30:15.250000"},
                true,
                "x; y",
                33.333_333_333_333_336
            ],
            [
                "123",
                {"guarded": "12345678901234567890.1"},
                {"guarded": "9007199254740993"},
                "1850-01-01",
                "soon",
                false,
                null,
                "n/a"
            ],
            [null, null, null, null, null, null, null, 0],
        ])
    );
    assert_eq!(sheets[1]["rows"], json!([["Note"], ["all is well"]]));
    let of_all = |what: &str| -> Vec<&serde_json::Value> {
        sheets
            .as_array()
            .unwrap()
            .iter()
            .map(|sheet| &sheet[what])
            .collect()
    };
    assert_eq!(of_all("name"), ["Costs_ 'Q1_Q2", "summary", "SUMMARY (2)"]);
    assert_eq!(of_all("frozen"), ["A2"; 3]);
    assert_eq!(sheets[0]["bold"], true);
    assert_eq!(sheets[0]["widths"], json!([28, 14, 14, 12, 20, 12, 28, 14]));
}

#[tokio::test]
async fn no_text_is_a_formula_or_a_link() {
    let dangerous = [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "{=1}",
        "http://a.example/?b",
        "mailto:a@b.example",
        "internal:Sheet1!A1",
        "#REF!",
        "TRUE",
        "1.5",
        "'=1",
    ];
    let given: Vec<String> = dangerous.map(str::to_owned).to_vec();
    let (bytes, _) = Workshop::default().bytes(&texts(&given), "xlsx").await;
    let sheets = read(&bytes);
    let rows = sheets[0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), given.len() + 1);
    for (row, text) in rows[1..].iter().zip(&given) {
        let expected = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
            json!({ "guarded": text })
        } else {
            json!(text)
        };
        assert_eq!(row[0], expected);
    }
}

#[tokio::test]
async fn nothing_to_show_is_an_empty_sheet() {
    let (bytes, _) = Workshop::default()
        .bytes(&Given::new(Vec::new()), "xlsx")
        .await;
    assert_eq!(read(&bytes).as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_sheet_cannot_hold_is_told() {
    let texts_of = |lengths: &[usize]| {
        let given: Vec<String> = lengths.iter().map(|length| "é".repeat(*length)).collect();
        texts(&given)
    };
    let mut workshop = Workshop::default();
    let error = workshop.render(&texts_of(&[32_767, 32_768]), "xlsx").await;
    let error = error.unwrap_err();
    assert!(error.is_final());
    assert_eq!(
        error.to_string(),
        "`texts`, row 2, `text`: the text is longer than 32767 characters, which a cell cannot \
         hold; ask for CSV"
    );

    workshop.renderer = workshop.renderer.with_max_rows_of_sheet(3);
    assert!(workshop.render(&texts_of(&[1; 3]), "xlsx").await.is_ok());
    let error = workshop
        .render(&texts_of(&[1; 4]), "xlsx")
        .await
        .unwrap_err();
    assert!(matches!(error, RenderError::TooManyRows { .. }), "{error}");
    assert!(error.is_final());
    assert!(workshop.render(&texts_of(&[1; 4]), "csv").await.is_ok());

    let fields = (0..16_385)
        .map(|number| field(&format!("f{number}"), None, FieldType::Text))
        .collect();
    let wide = section("wide", None, SectionKind::Repeating, fields, &[]);
    let error = workshop.render(&Given::new(vec![wide]), "xlsx").await;
    assert!(matches!(error, Err(RenderError::TooManyColumns { .. })));
}
