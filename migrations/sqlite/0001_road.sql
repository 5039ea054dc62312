-- The road of an event: accepted once, fanned out to subscriptions, delivered, recorded.
--
-- Times are milliseconds since 1970 (UTC). Our own ids are the 16 bytes of a UUIDv7, so that rows
-- of one time lie side by side; ids of the Report Forge core are its own strings. Every table that
-- holds a tenant's data names the workspace.

-- What was accepted already. Its key is the first half of sha256(source, NUL, id): 16 bytes cost a
-- third of what the two strings would, and such a row outlives its event.
create table event_key (
    key      blob    not null,
    event_id blob    not null,
    at       integer not null,
    constraint event_key_pk primary key (key),
    constraint event_key_length check (length(key) = 16)
) strict, without rowid;

-- The envelope as it arrived, byte for byte, and what was read out of it.
create table event (
    id          blob    not null,
    workspace   text    not null,
    source      text    not null,
    external_id text    not null,
    type        text    not null,
    project     text,
    edition     text,
    body        text    not null,
    occurred_at integer not null,
    accepted_at integer not null,
    constraint event_pk primary key (id)
) strict;

-- The order in which a workspace's events were committed: what a feed reads.
create table event_feed (
    workspace text    not null,
    position  integer not null,
    event_id  blob    not null,
    constraint event_feed_pk primary key (workspace, position)
) strict, without rowid;

-- The last position given out, kept apart from the feed so that a position is never given twice,
-- whatever is deleted there.
create table event_feed_position (
    only_row integer not null default 1,
    last     integer not null,
    constraint event_feed_position_pk primary key (only_row),
    constraint event_feed_position_one_row check (only_row = 1)
) strict;

insert into event_feed_position (last) values (0);

-- What is still to be delivered: small, because a settled delivery moves to `delivery`.
--   owner      null: pending, due at visible_at; else leased by that process until visible_at
--   epoch      how many leases there were: the lease token
--   lane       0 not tried yet, 1 tried and failed
--   bytes      of the event's text, so that a claim can stop before it has read it
create table delivery_queue (
    delivery_id     blob    not null,
    event_id        blob    not null,
    workspace       text    not null,
    subscription_id blob    not null,
    lane            integer not null,
    visible_at      integer not null,
    owner           blob,
    epoch           integer not null,
    attempts        integer not null,
    lost_leases     integer not null,
    bytes           integer not null,
    constraint delivery_queue_pk primary key (delivery_id),
    constraint delivery_queue_lane check (lane in (0, 1)),
    constraint delivery_queue_epoch check (epoch >= 0 and (owner is null or epoch > 0))
) strict, without rowid;

-- The one way in which the queue is searched: what of this subscription, in this lane, is due.
create index delivery_queue_due on delivery_queue (subscription_id, lane, visible_at);

-- What is delivered, failed or cancelled. Never changed once it is written.
create table delivery (
    workspace       text    not null,
    id              blob    not null,
    event_id        blob    not null,
    subscription_id blob    not null,
    state           text    not null,
    attempts        integer not null,
    epoch           integer not null,
    settled_at      integer not null,
    constraint delivery_pk primary key (workspace, id),
    constraint delivery_state check (state in ('succeeded', 'failed', 'cancelled'))
) strict, without rowid;

create index delivery_of_subscription on delivery (subscription_id, id);

-- Operators ask for what failed: a list that must not be searched among millions that did not.
create index delivery_not_succeeded on delivery (workspace, id)
    where state <> 'succeeded';

-- Every try. The epoch is that of its lease, so a settle that is repeated writes nothing new.
create table attempt (
    delivery_id      blob    not null,
    epoch            integer not null,
    workspace        text    not null,
    trigger          text    not null,
    at               integer not null,
    duration_ms      integer not null,
    status           integer,
    error            text,
    lease_lost       integer not null,
    response_headers text    not null,
    response_excerpt text    not null,
    constraint attempt_pk primary key (delivery_id, epoch)
) strict, without rowid;

-- Who wants which events. `generation` is the value of `subscription_generation` at the row's last
-- change: what changed since then is what a process must load again. A deleted one stays, so that
-- others learn of it; `swept` says that its queue was emptied.
create table subscription (
    id              blob    not null,
    workspace       text    not null,
    status          text    not null,
    disabled_reason text,
    version         integer not null,
    generation      integer not null,
    swept           integer not null default 0,
    url             text    not null,
    description     text    not null,
    event_types     text    not null,
    project_ids     text,
    format          text    not null,
    max_concurrency integer,
    retry_schedule_ms text,
    created_at      integer not null,
    updated_at      integer not null,
    deleted_at      integer,
    constraint subscription_pk primary key (id),
    constraint subscription_status check (status in ('active', 'disabled', 'deleted')),
    constraint subscription_reason check ((status = 'disabled') = (disabled_reason is not null)),
    constraint subscription_deleted check ((status = 'deleted') = (deleted_at is not null))
) strict;

create index subscription_generation_order on subscription (generation);
create index subscription_of_workspace on subscription (workspace, id);

-- Signing secrets, sealed under the master key; an end is set where a rotation overlaps.
create table subscription_secret (
    id              blob    not null,
    workspace       text    not null,
    subscription_id blob    not null,
    sealed          blob    not null,
    created_at      integer not null,
    expires_at      integer,
    constraint subscription_secret_pk primary key (id),
    constraint subscription_secret_subscription_fk
        foreign key (subscription_id) references subscription (id)
) strict;

create index subscription_secret_of_subscription on subscription_secret (subscription_id, id);

-- Grows with every change of a subscription, in the same transaction.
create table subscription_generation (
    only_row   integer not null default 1,
    generation integer not null,
    constraint subscription_generation_pk primary key (only_row),
    constraint subscription_generation_one_row check (only_row = 1)
) strict;

insert into subscription_generation (generation) values (0);

-- Something known, sealed: a start under another master key is noticed before it does harm.
create table master_key_check (
    only_row integer not null default 1,
    value    blob    not null,
    constraint master_key_check_pk primary key (only_row),
    constraint master_key_check_one_row check (only_row = 1)
) strict;
