use proptest::prelude::*;

use super::super::blueprint::{Bounds, Field, FieldType, Section, SectionKind};
use super::super::edition::Row;
use super::super::values::MAX_FAULTS;
use super::*;

fn field(name: &str, label: Option<&str>, field_type: FieldType) -> Field {
    Field {
        name: name.into(),
        label: label.map(str::to_owned),
        field_type,
        required: false,
        bounds: Bounds::default(),
        pattern: None,
    }
}

fn section() -> Section {
    let options = || vec!["a".to_owned(), "b c".into(), "-d".into()];
    Section {
        name: "costs".into(),
        label: None,
        kind: SectionKind::Repeating,
        fields: vec![
            field("item", Some("Item"), FieldType::Text),
            field("amount", Some("Amount (EUR)"), FieldType::Number),
            field("count", Some("Total"), FieldType::Integer),
            field("due", None, FieldType::Date),
            field("paid", None, FieldType::Boolean),
            field("kind", None, FieldType::Select(options())),
            field("tags", None, FieldType::MultiSelect(options())),
            field("state", None, FieldType::Rag),
            field("sum", Some("total"), FieldType::Calculated),
        ],
    }
}

fn read(text: &str) -> Result<Vec<NewRow>, TableError> {
    read_text(text.as_bytes(), Delimiter::Comma, &section())
}

/// What is wrong, a line each.
fn told(text: &str) -> Vec<String> {
    match read(text) {
        Err(TableError::Invalid(faults)) => {
            let told = faults.told().iter();
            told.map(|fault| format!("{}: {}", fault.place, fault.detail))
                .collect()
        }
        other => panic!("{text}: {other:?}"),
    }
}

fn malformed(text: &[u8]) -> String {
    match read_text(text, Delimiter::Comma, &section()) {
        Err(error @ TableError::Malformed { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn cells_become_values_of_their_fields() {
    let rows = read(
        "\u{feff}id,Item, amount (eur) ,count,due,paid,kind,tags,state\r\n\
         r1,\"a \"\"b\"\",\nc\",1.50,7,2026-05-01,Yes,b c,a; b c,RED\r\n\
         \r\n,,,\r\n\
         ,'=x,-0.1,,,0,'-d,'-d;a\n",
    )
    .unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].id.as_ref().unwrap().as_str(), "r1");
    assert_eq!(
        rows[0].values.as_str(),
        r#"{"item":"a \"b\",\nc","amount":1.50,"count":7,"due":"2026-05-01","paid":true,"kind":"b c","tags":["a","b c"],"state":"red"}"#
    );
    assert_eq!(rows[1].id, None);
    assert_eq!(
        rows[1].values.as_str(),
        r#"{"item":"=x","amount":-0.1,"count":null,"due":null,"paid":false,"kind":"-d","tags":["-d","a"],"state":null}"#
    );
}

#[test]
fn what_a_spreadsheet_puts_on_the_clipboard_is_read() {
    let text = "Item\tamount\n5\" pipe\t3\n\"two\nlines\"\t4";
    let rows = read_text(text.as_bytes(), Delimiter::Tab, &section()).unwrap();
    assert_eq!(rows[0].values.as_str(), r#"{"item":"5\" pipe","amount":3}"#);
    assert_eq!(
        rows[1].values.as_str(),
        r#"{"item":"two\nlines","amount":4}"#
    );
}

#[test]
fn each_cell_that_is_wrong_is_told_with_its_line_and_column() {
    assert_eq!(
        told("id,item,Amount (EUR),paid\nr1,\"a\nb\",x,maybe\n\nr1,c,1,yes,more\n"),
        [
            "line 2, column `Amount (EUR)`: must be a number such as -1234.5, without signs between its digits",
            "line 2, column `paid`: must be true or false, yes or no, 1 or 0",
            "line 5, column `id`: names a row that another row names",
            "line 5, column ``: has more cells than the header has columns",
        ]
    );
    for number in [
        "1,5", "+1", "1.", ".5", "01", "0x1", "NaN", "1 000", "1e999", "--1",
    ] {
        assert_eq!(told(&format!("amount\n\"{number}\"")).len(), 1, "{number}");
    }
}

#[test]
fn a_column_must_be_found_and_be_one_that_can_be_written() {
    assert_eq!(
        told("nothing\n"),
        ["line 1, column `nothing`: is no field of this section"]
    );
    assert_eq!(
        told("sum\n"),
        ["line 1, column `sum`: is read-only: leave it out"]
    );
    assert_eq!(
        told("TOTAL\n"),
        ["line 1, column `TOTAL`: is the label of several fields: use the field's name"]
    );
    assert_eq!(
        told("item,Item\n"),
        ["line 1, column `Item`: stands there twice"]
    );
    assert_eq!(
        told("item,\na,b\n"),
        ["line 2, column ``: stands in a column without a name"]
    );
    assert_eq!(read("ITEM,,ID\na,,r1\n").unwrap().len(), 1);
}

#[test]
fn bad_text_is_told_with_its_line_and_character() {
    assert!(malformed(b"").starts_with("line 1, character 1: there is no header"));
    assert!(malformed(b"item\n\"a\nb").starts_with("line 2, character 1: opens a quote"));
    assert!(
        malformed(b"item,amount\n\"a\nb\"x,1").starts_with("line 3, character 3: stands behind")
    );
    assert!(
        malformed("item\r\n\u{e9}".as_bytes().split_last().unwrap().1)
            .starts_with("line 2, character 1: is not UTF-8")
    );
}

#[test]
fn rows_and_faults_are_bounded() {
    let table = |rows: usize, cell: &str| format!("amount\n{}", format!("{cell}\n").repeat(rows));
    assert_eq!(
        read(&table(MAX_ROWS_SENT, "1")).unwrap().len(),
        MAX_ROWS_SENT
    );
    assert_eq!(
        read(&table(MAX_ROWS_SENT + 1, "1")),
        Err(TableError::TooManyRows)
    );
    let Err(TableError::Invalid(faults)) = read(&table(1_000, "x")) else {
        panic!("none of them is a number");
    };
    assert_eq!((faults.told().len(), faults.untold()), (MAX_FAULTS, 900));
}

#[test]
fn rows_in_json_are_read_and_what_is_wrong_is_pointed_at() {
    let rows = read_json(
        br#"{"rows":[{"id":"r1","values":{"amount":1.50}},{"values":{"item":null}}]}"#,
        &section(),
    );
    assert_eq!(rows.unwrap()[0].values.as_str(), r#"{"amount":1.50}"#);
    let places = |text: &str| match read_json(text.as_bytes(), &section()) {
        Err(TableError::Invalid(faults)) => {
            let told = faults.told().iter();
            told.map(|fault| fault.place.to_string()).collect()
        }
        other => vec![format!("{other:?}")],
    };
    assert_eq!(
        places(
            r#"{"rows":[{"id":"r1","values":{"amount":"1"}},{"id":"r1","values":{"a/b":1,"sum":2}}]}"#
        ),
        [
            "/rows/0/values/amount",
            "/rows/1/id",
            "/rows/1/values/a~1b",
            "/rows/1/values/sum"
        ]
    );
    assert_eq!(places(r#"{"rows":[{"values":[]}]}"#), ["/rows/0/values"]);
    assert_eq!(places(r#"{"rows":[{"id":1,"values":{}}]}"#), ["/rows/0/id"]);
    assert_eq!(places(r#"{"rows":{}}"#), ["/rows"]);
    let broken = read_json(b"{\"rows\":[\n{]}", &section()).unwrap_err();
    assert!(
        broken.to_string().starts_with("line 2, character 2"),
        "{broken}"
    );
}

fn write(rows: &[Row]) -> String {
    let section = section();
    let writable = || section.fields.iter().filter(|field| !field.is_read_only());
    let mut writer = TableWriter::of_fields(Vec::new(), writable());
    writer.rows_header().unwrap();
    for row in rows {
        writer.row(row).unwrap();
    }
    String::from_utf8(writer.finish().unwrap()).unwrap()
}

fn row(values: &str) -> Row {
    Row {
        id: RowId::new("=r").unwrap(),
        values: Values::parse(values).unwrap(),
    }
}

#[test]
fn no_text_is_written_as_a_formula_and_numbers_are_numbers() {
    assert_eq!(
        write(&[row(
            r#"{"amount":-1.50,"item":"=1+1","tags":["-d","a"],"paid":true}"#
        )]),
        "id,item,amount,count,due,paid,kind,tags,state\r\n\
         '=r,'=1+1,-1.50,,,true,,'-d;a,\r\n"
    );
}

#[test]
fn a_section_that_is_filled_once_has_no_ids() {
    let section = Section {
        fields: vec![field("item", None, FieldType::Text)],
        ..section()
    };
    let mut writer = TableWriter::new(Vec::new(), &section);
    writer.values_header().unwrap();
    writer
        .values(&Values::parse(r#"{"item":"a,b"}"#).unwrap())
        .unwrap();
    assert_eq!(writer.finish().unwrap(), b"item\r\n\"a,b\"\r\n");
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        items in prop::collection::vec("[a'=+\\-@\t\r\n\",;é ]{1,6}", 1..8),
        amounts in prop::collection::vec(any::<i32>(), 8),
    ) {
        let rows: Vec<Row> = items.iter().zip(&amounts).enumerate().map(|(at, (item, amount))| Row {
            id: RowId::new(&format!("r{at}")).unwrap(),
            values: Values::parse(&serde_json::json!({"item": item, "amount": amount}).to_string()).unwrap(),
        }).collect();
        let back = read(&write(&rows)).unwrap();
        prop_assert_eq!(back.len(), rows.len());
        for (back, row) in back.iter().zip(&rows) {
            prop_assert_eq!(back.id.as_ref(), Some(&row.id));
            for name in ["item", "amount"] {
                let of = |values: &Values| -> serde_json::Value {
                    serde_json::from_str(values.get(name).unwrap().unwrap().get()).unwrap()
                };
                prop_assert_eq!(of(&back.values), of(&row.values));
            }
        }
    }

    #[test]
    fn junk_never_panics(bytes in prop::collection::vec(prop::sample::select(b"\",\t\r\n'aitem=1\xc3\xa9\xef\xbb\xbf".to_vec()), 0..64)) {
        for delimiter in [Delimiter::Comma, Delimiter::Tab] {
            drop(read_text(&bytes, delimiter, &section()));
            drop(read_text(&[b"item,amount\n", &*bytes].concat(), delimiter, &section()));
        }
        drop(read_json(&bytes, &section()));
    }
}
