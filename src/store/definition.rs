//! The sections and outputs of a blueprint as they are kept: JSON of the program's own, the same in
//! both databases.

use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::{Result, StoreError};
use crate::domain::blueprint::{
    Blueprint, Bounds, Field, FieldType, OutputOffer, Section, SectionKind,
};
use crate::domain::ids::{BlueprintId, ProjectId};
use crate::domain::output::OutputFormat;

#[derive(Serialize, Deserialize)]
struct Kept {
    sections: Vec<KeptSection>,
    outputs: Vec<KeptOutput>,
}

#[derive(Serialize, Deserialize)]
struct KeptSection {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    kind: KeptKind,
    fields: Vec<KeptField>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeptKind {
    Single,
    Repeating,
}

#[derive(Serialize, Deserialize)]
struct KeptField {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    r#type: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    options: Vec<String>,
    required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct KeptOutput {
    name: String,
    format: String,
}

/// The text that is kept of a blueprint beside its name.
pub(super) fn write(blueprint: &Blueprint) -> Result<String> {
    let kept = Kept {
        sections: blueprint.sections.iter().map(keep_section).collect(),
        outputs: blueprint
            .outputs
            .iter()
            .map(|offer| KeptOutput {
                name: offer.name.clone(),
                format: offer.format.as_str().to_owned(),
            })
            .collect(),
    };
    serde_json::to_string(&kept).map_err(StoreError::corrupt)
}

fn keep_section(section: &Section) -> KeptSection {
    KeptSection {
        name: section.name.clone(),
        label: section.label.clone(),
        kind: match section.kind {
            SectionKind::Single => KeptKind::Single,
            SectionKind::Repeating => KeptKind::Repeating,
        },
        fields: section.fields.iter().map(keep_field).collect(),
    }
}

fn keep_field(field: &Field) -> KeptField {
    KeptField {
        name: field.name.clone(),
        label: field.label.clone(),
        r#type: field.field_type.as_str().to_owned(),
        options: field.field_type.options().to_vec(),
        required: field.required,
        min: field.bounds.min.clone(),
        max: field.bounds.max.clone(),
        pattern: field.pattern.clone(),
    }
}

/// The blueprint whose text this is.
pub(super) fn read(
    id: BlueprintId,
    project: ProjectId,
    name: String,
    text: &str,
) -> Result<Blueprint> {
    let kept: Kept = serde_json::from_str(text).map_err(StoreError::corrupt)?;
    Ok(Blueprint {
        id,
        project,
        name,
        sections: kept
            .sections
            .into_iter()
            .map(read_section)
            .collect::<Result<_>>()?,
        outputs: kept
            .outputs
            .into_iter()
            .map(|offer| {
                Ok(OutputOffer {
                    format: OutputFormat::parse(&offer.format)
                        .ok_or_else(|| StoreError::corrupt("no output format"))?,
                    name: offer.name,
                })
            })
            .collect::<Result<_>>()?,
    })
}

fn read_section(section: KeptSection) -> Result<Section> {
    Ok(Section {
        name: section.name,
        label: section.label,
        kind: match section.kind {
            KeptKind::Single => SectionKind::Single,
            KeptKind::Repeating => SectionKind::Repeating,
        },
        fields: section
            .fields
            .into_iter()
            .map(read_field)
            .collect::<Result<_>>()?,
    })
}

fn read_field(field: KeptField) -> Result<Field> {
    let field_type = FieldType::of(&field.r#type, field.options)
        .ok_or_else(|| StoreError::corrupt(format!("no field type: {}", field.r#type)))?;
    Ok(Field {
        name: field.name,
        label: field.label,
        field_type,
        required: field.required,
        bounds: Bounds {
            min: field.min,
            max: field.max,
        },
        pattern: field.pattern,
    })
}
