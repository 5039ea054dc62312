//! Writes of edition data: each is one transaction, from the key of a request that may be repeated to
//! the event that tells of it. Writers of one edition wait for each other for its turn. Its head is held
//! only when its content is written, and looked at again then: an event may have closed it meanwhile.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::PgTransaction;

use super::contents::{Holder, take_turn};
use super::errors::{reading, retrying};
use super::idempotency::{keep_answer, remember_write};
use super::sections::Place;
use super::{
    PostgresStore, Result, commit, drafts, edits, heads, idempotency, outbox, sections, structure,
};
use crate::domain::blueprint::Section;
use crate::domain::edition::Edition;
use crate::domain::event::Event;
use crate::domain::ids::{EditionId, WorkspaceId};
use crate::domain::own_event::OwnEvent;
use crate::domain::reach::Reach;
use crate::store::edits::{
    Edited, Progress, Ready, Stop, check_blueprint, check_open, created_event, lacks_nothing,
    own_event, stepped,
};
use crate::store::{
    Edit, EditionRecord, EditionWrites, Idempotency, Maintenance, NewEdition, Write, Written,
};

#[async_trait]
impl EditionWrites for PostgresStore {
    async fn answered(
        &self,
        workspace: &WorkspaceId,
        once: &Idempotency,
    ) -> Result<Option<Written>> {
        reading(async {
            let mut connection = self.connection().await?;
            idempotency::answered(&mut connection, workspace, once).await
        })
        .await
    }

    async fn create_edition(&self, new: &NewEdition, write: &Write<'_>) -> Result<Written> {
        retrying(|| async { self.create(new, write).await.or_else(Stop::outcome) }).await
    }

    async fn edit_section(
        &self,
        edition: &EditionId,
        section: &Section,
        edit: &Edit,
        write: &Write<'_>,
    ) -> Result<Written> {
        let ready = Ready::of(section, edit)?;
        retrying(|| async {
            self.edit(edition, &ready, write)
                .await
                .or_else(Stop::outcome)
        })
        .await
    }

    async fn submit_edition(&self, edition: &EditionId, write: &Write<'_>) -> Result<Written> {
        write.intake.relief().await;
        retrying(|| async { self.submit(edition, write).await.or_else(Stop::outcome) }).await
    }
}

impl PostgresStore {
    async fn create(&self, new: &NewEdition, write: &Write<'_>) -> Progress<Written> {
        let workspace = &write.reach.workspace;
        let mut tx = self.begin().await?;
        go_on(&mut tx, write, &new.id).await?;
        take_turn_of(&mut tx, write, &new.id).await?;
        let found = structure::blueprint(&mut *tx, write.reach, &new.blueprint).await?;
        let found = found.ok_or(Stop::Answered(Written::NotFound))?;
        check_blueprint(Some(found.version), write)?;
        let blueprint = found.blueprint;
        let now = drafts::now(&mut tx).await?;
        let edition = Edition::draft(
            new.id.clone(),
            &blueprint,
            new.name.clone(),
            new.period.clone(),
            now,
        );
        drafts::insert(&mut tx, workspace, &edition, &blueprint, &new.outputs).await?;
        let written = drafts::raise(&mut tx, workspace, edition).await?;
        let event = created_event(&written.edition, new, &blueprint, write, now)?;
        let done = answer(&mut tx, write, &written).await?;
        self.finish(tx, done, Some(event.event())).await
    }

    async fn edit(
        &self,
        edition: &EditionId,
        ready: &Ready<'_>,
        write: &Write<'_>,
    ) -> Progress<Written> {
        let workspace = &write.reach.workspace;
        let mut tx = self.begin().await?;
        go_on(&mut tx, write, edition).await?;
        let before = open(&mut tx, write, edition).await?;
        let blueprint = &before.edition.blueprint;
        let version = structure::blueprint_version(&mut *tx, workspace, blueprint).await?;
        check_blueprint(version, write)?;
        let place = Place::of(write.reach, &before, &ready.section.name);
        if edits::apply(&mut tx, place, ready).await? == Edited::Same {
            let done = answer(&mut tx, write, &before).await?;
            return self.finish(tx, done, None).await;
        }
        let before = hold(&mut tx, write, edition).await?;
        let now = drafts::now(&mut tx).await?;
        let revision = before.revision + 1;
        let edition = stepped(before, |edition| edition.change(now))?;
        let after = EditionRecord { edition, revision };
        // It may tell of 50,000 rows: the other editions are not to wait until that is written.
        let done = answer(&mut tx, write, &after).await?;
        let written = drafts::raise(&mut tx, workspace, after.edition).await?;
        let changes = std::slice::from_ref(&ready.change);
        let event = OwnEvent::EditionChanged(&written.edition, changes);
        let event = own_event(&event, write, now)?;
        self.finish(tx, done, Some(event.event())).await
    }

    async fn submit(&self, edition: &EditionId, write: &Write<'_>) -> Progress<Written> {
        let workspace = &write.reach.workspace;
        let mut tx = self.begin().await?;
        go_on(&mut tx, write, edition).await?;
        let before = open(&mut tx, write, edition).await?;
        check_whole(&mut tx, write, &before).await?;
        let before = hold(&mut tx, write, edition).await?;
        let now = drafts::now(&mut tx).await?;
        let after = stepped(before, |edition| edition.submit(now))?;
        // What the event tells is stated first, and of the same time: so the event is remembered, but
        // moves nothing.
        drafts::state(&mut tx, workspace, &after).await?;
        let event = OwnEvent::EditionSubmitted(&after);
        let event = Arc::new(own_event(&event, write, after.status_changed_at)?);
        let events = [Arc::clone(&event)];
        let kept = self
            .keep(&mut tx, &events, write.leasing, write.intake)
            .await?;
        let written = drafts::raise(&mut tx, workspace, after).await?;
        let done = answer(&mut tx, write, &written).await?;
        let written = self.finish(tx, done, Some(event.event())).await?;
        let accepted = self.kept(kept);
        write.intake.hand_over(accepted.leased);
        if accepted.pending > 0 {
            write.intake.left_waiting(&accepted.pending_of);
            self.announce();
        }
        Ok(written)
    }

    /// Commits with the event that tells of the write.
    async fn finish(
        &self,
        mut tx: PgTransaction<'static>,
        done: Written,
        event: Option<&Event>,
    ) -> Progress<Written> {
        let events: Vec<&Event> = event.into_iter().collect();
        let appended = outbox::append(&mut tx, &self.outbox, &events).await?;
        commit(tx).await?;
        appended.committed();
        Ok(done)
    }
}

/// Makes the answer, and keeps it with the key of the request.
async fn answer(
    tx: &mut PgTransaction<'_>,
    write: &Write<'_>,
    written: &EditionRecord,
) -> Result<Written> {
    let answer = (write.answer)(written);
    let version = written.edition.version;
    let workspace = &write.reach.workspace;
    keep_answer(tx, workspace, write.once, &answer, version).await?;
    Ok(Written::Done { answer, version })
}

/// Lets go on whose request was not made before.
async fn go_on(tx: &mut PgTransaction<'_>, write: &Write<'_>, edition: &EditionId) -> Progress<()> {
    let workspace = &write.reach.workspace;
    match remember_write(tx, workspace, write.once, edition.as_str()).await? {
        Some(known) => Err(Stop::Answered(known)),
        None => Ok(()),
    }
}

async fn take_turn_of(
    tx: &mut PgTransaction<'_>,
    write: &Write<'_>,
    edition: &EditionId,
) -> Result<()> {
    let workspace = &write.reach.workspace;
    take_turn(tx, [Holder { workspace, edition }]).await
}

/// The edition, if it is in reach and takes changes. What it holds, and its version, stay as they are
/// to the end of the transaction.
async fn open(
    tx: &mut PgTransaction<'_>,
    write: &Write<'_>,
    edition: &EditionId,
) -> Progress<EditionRecord> {
    take_turn_of(tx, write, edition).await?;
    let found = heads::one(&mut **tx, write.reach, edition).await?;
    still_open(found, write)
}

/// The same edition, if it takes changes still, held to the end of the transaction.
async fn hold(
    tx: &mut PgTransaction<'_>,
    write: &Write<'_>,
    edition: &EditionId,
) -> Progress<EditionRecord> {
    let found = heads::hold(tx, write.reach, edition).await?;
    still_open(found, write)
}

fn still_open(found: Option<EditionRecord>, write: &Write<'_>) -> Progress<EditionRecord> {
    let found = found.ok_or(Stop::Answered(Written::NotFound))?;
    check_open(&found, write)?;
    Ok(found)
}

/// Lets go on an edition in which nothing is missing.
async fn check_whole(
    tx: &mut PgTransaction<'_>,
    write: &Write<'_>,
    seen: &EditionRecord,
) -> Progress<()> {
    let everything = Reach::all(&write.reach.workspace);
    let found = structure::blueprint(&mut **tx, &everything, &seen.edition.blueprint).await?;
    let blueprint = found
        .ok_or(Stop::Answered(Written::BlueprintChanged))?
        .blueprint;
    let content = sections::required(tx, write.reach, seen, &blueprint).await?;
    lacks_nothing(&blueprint, &content)
}
