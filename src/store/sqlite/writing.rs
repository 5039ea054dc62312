//! Writes of edition data: each is one transaction, from the key of a request that may be repeated to
//! the event that tells of it.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::{Sqlite, SqliteConnection, Transaction};

use super::events::Offer;
use super::idempotency::{keep_answer, remember_write};
use super::rows::millis;
use super::sections::Place;
use super::{
    Approach, SqliteStore, drafts, edits, heads, idempotency, outbox, sections, structure,
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
    Edit, EditionRecord, EditionWrites, Idempotency, NewEdition, Result, StoreError, Write, Written,
};

#[async_trait]
impl EditionWrites for SqliteStore {
    async fn answered(
        &self,
        workspace: &WorkspaceId,
        once: &Idempotency,
    ) -> Result<Option<Written>> {
        let mut connection = self.read().await?;
        let now = self.clock.now();
        idempotency::answered(&mut connection, workspace, once, now).await
    }

    async fn create_edition(&self, new: &NewEdition, write: &Write<'_>) -> Result<Written> {
        self.create(new, write).await.or_else(Stop::outcome)
    }

    async fn edit_section(
        &self,
        edition: &EditionId,
        section: &Section,
        edit: &Edit,
        write: &Write<'_>,
    ) -> Result<Written> {
        let ready = Ready::of(section, edit)?;
        self.edit(edition, &ready, write)
            .await
            .or_else(Stop::outcome)
    }

    async fn submit_edition(&self, edition: &EditionId, write: &Write<'_>) -> Result<Written> {
        write.intake.relief().await;
        self.submit(edition, write).await.or_else(Stop::outcome)
    }
}

impl SqliteStore {
    async fn create(&self, new: &NewEdition, write: &Write<'_>) -> Progress<Written> {
        let workspace = &write.reach.workspace;
        let mut transaction = self.write().await?;
        let now = self.clock.now();
        go_on(&mut transaction, write, &new.id, now).await?;
        let found = structure::blueprint(&mut transaction, write.reach, &new.blueprint).await?;
        let found = found.ok_or(Stop::Answered(Written::NotFound))?;
        check_blueprint(Some(found.version), write)?;
        let blueprint = found.blueprint;
        let edition = Edition::draft(
            new.id.clone(),
            &blueprint,
            new.name.clone(),
            new.period.clone(),
            now,
        );
        drafts::insert(
            &mut transaction,
            workspace,
            &edition,
            &blueprint,
            &new.outputs,
        )
        .await?;
        let written = drafts::raise(&mut transaction, workspace, edition, millis(now)).await?;
        let event = created_event(&written.edition, new, &blueprint, write, now)?;
        self.finish(transaction, write, &written, Some(event.event()))
            .await
    }

    async fn edit(
        &self,
        edition: &EditionId,
        ready: &Ready<'_>,
        write: &Write<'_>,
    ) -> Progress<Written> {
        let workspace = &write.reach.workspace;
        let mut transaction = self.write().await?;
        let now = self.clock.now();
        go_on(&mut transaction, write, edition, now).await?;
        let before = open(&mut transaction, write, edition).await?;
        let blueprint = &before.edition.blueprint;
        let version = structure::blueprint_version(&mut transaction, workspace, blueprint).await?;
        check_blueprint(version, write)?;
        let place = Place {
            workspace,
            edition,
            section: &ready.section.name,
        };
        if edits::apply(&mut transaction, place, ready).await? == Edited::Same {
            return self.finish(transaction, write, &before, None).await;
        }
        let after = stepped(before, |edition| edition.change(now))?;
        let written = drafts::raise(&mut transaction, workspace, after, millis(now)).await?;
        let changes = std::slice::from_ref(&ready.change);
        let event = OwnEvent::EditionChanged(&written.edition, changes);
        let event = own_event(&event, write, now)?;
        self.finish(transaction, write, &written, Some(event.event()))
            .await
    }

    async fn submit(&self, edition: &EditionId, write: &Write<'_>) -> Progress<Written> {
        let workspace = &write.reach.workspace;
        let mut transaction = self.write().await?;
        let now = self.clock.now();
        go_on(&mut transaction, write, edition, now).await?;
        let before = open(&mut transaction, write, edition).await?;
        check_whole(&mut transaction, workspace, &before.edition).await?;
        let after = stepped(before, |edition| edition.submit(now))?;
        // What the event tells is stated first, and of the same time: so the event is remembered, but
        // moves nothing.
        drafts::state(&mut transaction, workspace, &after).await?;
        let event = OwnEvent::EditionSubmitted(&after);
        let event = Arc::new(own_event(&event, write, after.status_changed_at)?);
        let events = [Arc::clone(&event)];
        let offer = Offer::of(&events, write.leasing, write.intake);
        let kept = self
            .keep(&mut transaction, &offer, Approach::Careful)
            .await?
            .ok_or_else(|| StoreError::corrupt("an event's key is there and cannot be found"))?;
        let written = drafts::raise(&mut transaction, workspace, after, millis(now)).await?;
        let written = self
            .finish(transaction, write, &written, Some(event.event()))
            .await?;
        let accepted = self.kept(kept);
        write.intake.hand_over(accepted.leased);
        if accepted.pending > 0 {
            write.intake.left_waiting(&accepted.pending_of);
        }
        Ok(written)
    }

    /// Makes the answer, keeps it, and commits with the event that tells of the write.
    async fn finish(
        &self,
        mut transaction: Transaction<'static, Sqlite>,
        write: &Write<'_>,
        written: &EditionRecord,
        event: Option<&Event>,
    ) -> Progress<Written> {
        let answer = (write.answer)(written);
        let version = written.edition.version;
        let workspace = &write.reach.workspace;
        keep_answer(&mut transaction, workspace, write.once, &answer, version).await?;
        let events: Vec<&Event> = event.into_iter().collect();
        let now = millis(self.clock.now());
        let appended = outbox::append(&mut transaction, &self.outbox, &events, now).await?;
        self.commit(transaction).await?;
        appended.committed();
        Ok(Written::Done { answer, version })
    }
}

/// Lets go on whose request was not made before.
async fn go_on(
    transaction: &mut SqliteConnection,
    write: &Write<'_>,
    edition: &EditionId,
    now: DateTime<Utc>,
) -> Progress<()> {
    let workspace = &write.reach.workspace;
    match remember_write(transaction, workspace, write.once, edition.as_str(), now).await? {
        Some(known) => Err(Stop::Answered(known)),
        None => Ok(()),
    }
}

/// The edition, if it is in reach and takes changes.
async fn open(
    transaction: &mut SqliteConnection,
    write: &Write<'_>,
    edition: &EditionId,
) -> Progress<EditionRecord> {
    let found = heads::one(transaction, write.reach, edition).await?;
    let found = found.ok_or(Stop::Answered(Written::NotFound))?;
    check_open(&found, write)?;
    Ok(found)
}

/// Lets go on an edition in which nothing is missing.
async fn check_whole(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    edition: &Edition,
) -> Progress<()> {
    let everything = Reach::all(workspace);
    let found = structure::blueprint(transaction, &everything, &edition.blueprint).await?;
    let blueprint = found
        .ok_or(Stop::Answered(Written::BlueprintChanged))?
        .blueprint;
    let content = sections::required(transaction, workspace, &edition.id, &blueprint).await?;
    lacks_nothing(&blueprint, &content)
}
