//! Values put together out of those that were and those that a client sends.

use super::super::blueprint::{Field, Section};
use super::{Values, ValuesWriter, quoted};

impl Values {
    /// These values with those of a patch over them: what the patch names is replaced, where it
    /// stands; `null` takes it away; what is new comes last.
    pub fn merge(&self, patch: &Self) -> Result<Self, serde_json::Error> {
        let (mine, patch) = (self.entries()?, patch.entries()?);
        let mut writer = ValuesWriter::default();
        let mut push = |name: &str, json: &str| {
            if json != "null" {
                writer.push(&quoted(name), json);
            }
        };
        for (name, value) in &mine {
            let patched = patch.iter().find(|(other, _)| other == name);
            push(name, patched.map_or(value, |(_, value)| value).get());
        }
        for (name, value) in &patch {
            if !mine.iter().any(|(known, _)| known == name) {
                push(name, value.get());
            }
        }
        Ok(writer.finish())
    }

    /// These values, as a row or a section is put whole, with what only the core may write as it
    /// was before.
    pub fn with_read_only_of(
        &self,
        previous: &Self,
        section: &Section,
    ) -> Result<Self, serde_json::Error> {
        let read_only = |name: &str| section.field(name).is_some_and(Field::is_read_only);
        let kept = previous.entries()?;
        let kept = kept.iter().filter(|(name, _)| read_only(name));
        let mut writer = ValuesWriter::default();
        for (name, value) in self
            .entries()?
            .iter()
            .filter(|(name, _)| !read_only(name))
            .chain(kept)
        {
            if value.get() != "null" {
                writer.push(&quoted(name), value.get());
            }
        }
        Ok(writer.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::super::blueprint::FieldType;
    use super::super::check::tests::{field, section};
    use super::*;

    fn values(text: &str) -> Values {
        Values::parse(text).unwrap()
    }

    #[test]
    fn a_patch_replaces_in_place_clears_and_adds() {
        let before = values(r#"{"a":1.50,"b":2,"é\"":3,"c":null}"#);
        let patch = values(r#"{"d":[1],"b":null,"a":"x","z":null}"#);
        let after = before.merge(&patch).unwrap();
        assert_eq!(after.as_str(), r#"{"a":"x","é\"":3,"d":[1]}"#);
    }

    #[test]
    fn a_put_keeps_what_only_the_core_may_write() {
        let section = section(vec![
            field("a", FieldType::Text),
            field("total", FieldType::Calculated),
            field("doc", FieldType::File),
        ]);
        let previous = values(r#"{"total":7.10,"a":"old","doc":{"name":"x"}}"#);
        let put = values(r#"{"a":"new","total":8}"#);
        let after = put.with_read_only_of(&previous, &section).unwrap();
        assert_eq!(
            after.as_str(),
            r#"{"a":"new","total":7.10,"doc":{"name":"x"}}"#
        );
        let cleared = values("{}").with_read_only_of(&values("{}"), &section);
        assert_eq!(cleared.unwrap(), Values::default());
    }

    type Model = BTreeMap<String, Option<i32>>;

    fn written(model: &Model) -> Values {
        values(&serde_json::to_string(model).unwrap())
    }

    proptest! {
        #[test]
        fn a_merge_is_that_of_maps(
            before in prop::collection::btree_map(".{1,3}".prop_filter("no NUL", |name| !name.contains('\0')), any::<Option<i32>>(), 0..6),
            patch in prop::collection::btree_map("[a-c\"\\\\]{1,2}", any::<Option<i32>>(), 0..6),
        ) {
            let after = written(&before).merge(&written(&patch)).unwrap();
            let mut expected = before;
            expected.extend(patch);
            expected.retain(|_, value| value.is_some());
            let told: Model = serde_json::from_str(Values::parse(after.as_str()).unwrap().as_str()).unwrap();
            prop_assert_eq!(told, expected);
        }
    }
}
