//! The structure of a report: sections of typed fields, and the outputs that it offers.

use serde_json::Number;

use super::ids::{BlueprintId, ProjectId};
use super::output::OutputFormat;

/// A report structure of a project.
#[derive(Clone, Debug, PartialEq)]
pub struct Blueprint {
    /// The core's id.
    pub id: BlueprintId,
    /// The project it belongs to.
    pub project: ProjectId,
    /// Its name.
    pub name: String,
    /// Its sections, in the order of the report. Their names are different from one another.
    pub sections: Vec<Section>,
    /// The outputs that an edition of it may have. Their names are different from one another.
    pub outputs: Vec<OutputOffer>,
}

impl Blueprint {
    /// The section of that name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The output of that name.
    pub fn output(&self, name: &str) -> Option<&OutputOffer> {
        self.outputs.iter().find(|output| output.name == name)
    }
}

/// A part of the report.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// What it is called in addresses and data.
    pub name: String,
    /// What a person reads above it; `None`: the name.
    pub label: Option<String>,
    /// Whether it is filled once or row by row.
    pub kind: SectionKind,
    /// Its fields, in order. Their names are different from one another.
    pub fields: Vec<Field>,
}

impl Section {
    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Whether it is filled row by row.
    pub fn is_repeating(&self) -> bool {
        self.kind == SectionKind::Repeating
    }

    /// What a person reads above it.
    pub fn title(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }
}

/// Whether a section is filled once or row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// One value for each field.
    Single,
    /// Any number of rows, each with a value for each field.
    Repeating,
}

impl SectionKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Single, Self::Repeating];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Repeating => "repeating",
        }
    }
}

/// One thing to fill in.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// What it is called in data.
    pub name: String,
    /// What a person reads beside it; `None`: the name.
    pub label: Option<String>,
    /// What it holds.
    pub field_type: FieldType,
    /// Whether an edition can be submitted without it.
    pub required: bool,
    /// The least and the most that it may hold.
    pub bounds: Bounds,
    /// A regular expression that a text must match as a whole.
    pub pattern: Option<String>,
}

impl Field {
    /// What a person reads beside it.
    pub fn title(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }

    /// Whether only the core may write it (product.md §5).
    pub fn is_read_only(&self) -> bool {
        matches!(self.field_type, FieldType::File | FieldType::Calculated)
    }
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// A line of text.
    Text,
    /// Text of any length.
    LongText,
    /// A decimal number.
    Number,
    /// A whole number.
    Integer,
    /// A day (RFC 3339 `full-date`).
    Date,
    /// An instant (RFC 3339 `date-time`).
    Datetime,
    /// `true` or `false`.
    Boolean,
    /// One of these options.
    Select(Vec<String>),
    /// Any of these options, each once.
    MultiSelect(Vec<String>),
    /// A traffic light: `red`, `amber` or `green`.
    Rag,
    /// The id of a member.
    User,
    /// A file of the core's; read-only here.
    File,
    /// What the core computes; read-only here.
    Calculated,
}

impl FieldType {
    /// Reads the word for it; the options are those of a choice, and of no use to others.
    pub fn of(word: &str, options: Vec<String>) -> Option<Self> {
        Some(match word {
            "text" => Self::Text,
            "long_text" => Self::LongText,
            "number" => Self::Number,
            "integer" => Self::Integer,
            "date" => Self::Date,
            "datetime" => Self::Datetime,
            "boolean" => Self::Boolean,
            "select" => Self::Select(options),
            "multi_select" => Self::MultiSelect(options),
            "rag" => Self::Rag,
            "user" => Self::User,
            "file" => Self::File,
            "calculated" => Self::Calculated,
            _ => return None,
        })
    }

    /// The word for it in blueprints and answers.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::LongText => "long_text",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Date => "date",
            Self::Datetime => "datetime",
            Self::Boolean => "boolean",
            Self::Select(_) => "select",
            Self::MultiSelect(_) => "multi_select",
            Self::Rag => "rag",
            Self::User => "user",
            Self::File => "file",
            Self::Calculated => "calculated",
        }
    }

    /// What may be chosen, where something is.
    pub fn options(&self) -> &[String] {
        match self {
            Self::Select(options) | Self::MultiSelect(options) => options,
            _ => &[],
        }
    }
}

/// The least and the most that a field may hold, both included: of a number its value, of a text
/// its characters, of a choice of several their count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds {
    /// The least.
    pub min: Option<Number>,
    /// The most.
    pub max: Option<Number>,
}

/// An output that an edition may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputOffer {
    /// What it is called.
    pub name: String,
    /// What it is made as.
    pub format: OutputFormat,
}
