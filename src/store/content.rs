//! What the sections of an edition are to hold: the pure part of writing them, the same in both
//! databases.

use std::collections::HashMap;

use super::snapshots::digest;
use crate::domain::blueprint::{Blueprint, SectionKind};
use crate::domain::edition::{Row, SectionContent};
use crate::domain::snapshot::{Snapshot, State};

/// What an edition is to hold from now on.
pub(super) struct Content<'a>(Vec<Held<'a>>);

/// What one of its sections is to hold.
pub(super) struct Held<'a> {
    pub(super) name: &'a str,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Single(&'a str),
    Repeating { rows: &'a [Row], digest: [u8; 32] },
}

impl<'a> Content<'a> {
    /// What this snapshot says; nothing, where it is not of an edition or of one that is deleted.
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let State::Edition(state) = &snapshot.state else {
            return Self(Vec::new());
        };
        let sections = state.content.iter().map(|(name, content)| Held {
            name,
            kind: match content {
                SectionContent::Single(values) => Kind::Single(values.as_str()),
                SectionContent::Repeating(rows) => Kind::repeating(rows),
            },
        });
        Self(sections.collect())
    }

    /// Nothing, in each section of a blueprint.
    pub(super) fn empty(blueprint: &'a Blueprint) -> Self {
        let sections = blueprint.sections.iter().map(|section| Held {
            name: &section.name,
            kind: match section.kind {
                SectionKind::Single => Kind::Single("{}"),
                SectionKind::Repeating => Kind::repeating(&[]),
            },
        });
        Self(sections.collect())
    }

    /// Its sections, in their order.
    pub(super) fn sections(&self) -> &[Held<'a>] {
        &self.0
    }
}

impl<'a> Kind<'a> {
    fn repeating(rows: &'a [Row]) -> Self {
        Self::Repeating {
            rows,
            digest: digest(rows),
        }
    }
}

impl<'a> Held<'a> {
    /// The values of a section that is filled once.
    pub(super) fn values(&self) -> Option<&'a str> {
        match self.kind {
            Kind::Single(values) => Some(values),
            Kind::Repeating { .. } => None,
        }
    }

    /// By what the rows of a repeating section are recognised.
    pub(super) fn digest(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Single(_) => None,
            Kind::Repeating { digest, .. } => Some(digest),
        }
    }

    /// The rows of a repeating section; none of one that is filled once.
    pub(super) fn rows(&self) -> &'a [Row] {
        match self.kind {
            Kind::Single(_) => &[],
            Kind::Repeating { rows, .. } => rows,
        }
    }

    /// Whether the rows that are there, recognised by these, are its rows already.
    pub(super) fn is_kept(&self, digests: &HashMap<String, Vec<u8>>) -> bool {
        self.digest()
            .is_some_and(|digest| digests.get(self.name).is_some_and(|kept| kept == digest))
    }
}
