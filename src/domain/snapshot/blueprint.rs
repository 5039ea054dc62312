//! The data of `blueprint.snapshot`.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Number;

use super::super::blueprint::{
    Blueprint, Bounds, Field, FieldType, OutputOffer, Section, SectionKind,
};
use super::super::catalogue::DataError;
use super::super::envelope::Object;
use super::super::ids::{BlueprintId, ProjectId};
use super::super::output::OutputFormat;
use super::data::wrong;
use super::text::{self, Line, List, Name, Text, Version};

#[derive(Deserialize)]
pub(super) struct BlueprintData {
    id: BlueprintId,
    pub(super) version: Version,
    pub(super) project_id: Option<ProjectId>,
    name: Line,
    sections: List<SectionShape, 500>,
    outputs: Option<List<Object<OutputData>, 100>>,
}

#[derive(Deserialize)]
struct OutputData {
    name: Name,
    #[serde(deserialize_with = "text::output_format")]
    format: OutputFormat,
}

#[derive(Deserialize)]
struct SectionData {
    name: Name,
    label: Option<Line>,
    kind: SectionKindData,
    fields: List<FieldShape, 500>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum SectionKindData {
    Single,
    Repeating,
}

#[derive(Deserialize)]
struct FieldData {
    name: Name,
    label: Option<Line>,
    r#type: String,
    required: Option<bool>,
    options: Option<List<Line, 2_000>>,
    min: Option<Number>,
    max: Option<Number>,
    pattern: Option<Text<1_000>>,
}

/// A section that is right in itself.
#[derive(Deserialize)]
#[serde(try_from = "Object<SectionData>")]
struct SectionShape(Section);

/// A field that is right in itself.
#[derive(Deserialize)]
#[serde(try_from = "Object<FieldData>")]
struct FieldShape(Field);

impl BlueprintData {
    /// The blueprint, of this project.
    pub(super) fn into_blueprint(self, project: ProjectId) -> Result<Blueprint, DataError> {
        let sections: Vec<Section> = self.sections.0.into_iter().map(|shape| shape.0).collect();
        let offers = self.outputs.unwrap_or_default().0.into_iter();
        let outputs: Vec<OutputOffer> = offers
            .map(|Object(told)| OutputOffer {
                name: told.name.0,
                format: told.format,
            })
            .collect();
        each_once(sections.iter().map(|section| &*section.name))
            .map_err(|reason| wrong("data.sections", &reason))?;
        each_once(outputs.iter().map(|output| &*output.name))
            .map_err(|reason| wrong("data.outputs", &reason))?;
        Ok(Blueprint {
            id: self.id,
            project,
            name: self.name.0,
            sections,
            outputs,
        })
    }
}

impl TryFrom<Object<SectionData>> for SectionShape {
    type Error = String;

    fn try_from(Object(told): Object<SectionData>) -> Result<Self, String> {
        let fields: Vec<Field> = told.fields.0.into_iter().map(|shape| shape.0).collect();
        each_once(fields.iter().map(|field| &*field.name))?;
        Ok(Self(Section {
            name: told.name.0,
            label: told.label.map(|text| text.0),
            kind: match told.kind {
                SectionKindData::Single => SectionKind::Single,
                SectionKindData::Repeating => SectionKind::Repeating,
            },
            fields,
        }))
    }
}

impl TryFrom<Object<FieldData>> for FieldShape {
    type Error = String;

    fn try_from(Object(told): Object<FieldData>) -> Result<Self, String> {
        let options = told
            .options
            .map(|list| list.0.into_iter().map(|text| text.0).collect());
        let options: Vec<String> = options.unwrap_or_default();
        each_once(options.iter().map(String::as_str))?;
        let field_type =
            FieldType::of(&told.r#type, options).ok_or("`type` must be one of the known types")?;
        Ok(Self(Field {
            name: told.name.0,
            label: told.label.map(|text| text.0),
            field_type,
            required: told.required.unwrap_or(false),
            bounds: Bounds {
                min: told.min,
                max: told.max,
            },
            pattern: told.pattern.map(|text| text.0),
        }))
    }
}

/// Names must be different from one another.
fn each_once<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("`{name}` stands there twice"));
        }
    }
    Ok(())
}
