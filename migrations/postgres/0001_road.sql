-- The straight road: events in, deliveries queued, sent, recorded.
--
-- Ids of ours are UUIDv7 (16 bytes); ids of the Report Forge core are text of its own. Every table
-- of tenant data carries its workspace. There are no foreign keys on the hot path: what they would
-- check is written by one statement or one transaction, and each would cost a lookup and a row lock
-- per row. Times that clients see are whole milliseconds; those of the queue are exact.
--
-- Workspaces are compared by their bytes ("C"), since their order means nothing to anybody. By the
-- rules of a language, which many databases are made with, an index that begins with one costs half
-- as much again to write to.

-- What an event is known by: the first 16 bytes of sha256(source, NUL, id), in the type that holds 16
-- bytes without a length before them. A short key of fixed length keeps the index dense, and a table
-- of its own outlives the events it guards against.
create table event_key (
    key uuid not null,
    event_id uuid not null,
    at timestamptz(3) not null default now(),
    constraint event_key_pk primary key (key)
);

-- The envelope is kept as the text that arrived: `json` types would change or refuse it.
create table event (
    id uuid not null,
    workspace text collate "C" not null,
    source text not null,
    external_id text not null,
    type text not null,
    project text,
    edition text,
    body text not null,
    occurred_at timestamptz(3) not null,
    accepted_at timestamptz(3) not null default now(),
    constraint event_pk primary key (id)
);

-- Postgres's own compression is slow: an event of 10 kB spent 140 us in it, and spends 20 in this one,
-- for the same room.
do $$
begin
    alter table event alter column body set compression lz4;
exception
    -- A server older than 14, or built without it.
    when syntax_error or feature_not_supported then null;
end
$$;

-- Events in the order of their commits. Positions are drawn under a transaction lock that accept
-- takes last, so whoever has read up to a position has seen everything below it. Numbers may be
-- skipped (a sequence does not roll back), never filled in later.
create sequence event_feed_position as bigint;

create table event_feed (
    workspace text collate "C" not null,
    position bigint not null,
    event_id uuid not null,
    constraint event_feed_pk primary key (workspace, position)
);

-- The hot queue: only deliveries that are still to be made. A settled one moves to `delivery`.
create table delivery_queue (
    delivery_id uuid not null,
    event_id uuid not null,
    subscription_id uuid not null,
    -- When it is due; while it is leased, when the lease ends.
    visible_at timestamptz not null,
    -- The run of the process that holds the lease, or last held it.
    owner uuid,
    -- The lease token: 0 before the first lease, one more with each.
    epoch integer not null,
    attempts integer not null,
    -- Leases in a row that ended without an outcome.
    lost_leases integer not null,
    -- The length of the event's text, so that a claim can bound what it loads.
    bytes integer not null,
    -- 0 fresh, 1 retry.
    lane smallint not null,
    workspace text collate "C" not null,
    constraint delivery_queue_pk primary key (delivery_id),
    constraint delivery_queue_lane check (lane in (0, 1)),
    constraint delivery_queue_epoch check (epoch >= 0 and (owner is null or epoch > 0))
) with (
    -- Room beside each row for its next versions.
    fillfactor = 70,
    -- Rows live for seconds: the default share of the table would leave a large backlog's dead rows
    -- in the claim's way for hours, and the default pauses could not keep up with the deletes.
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.02,
    autovacuum_analyze_threshold = 5000
);

-- What the claim and the look for due work walk along. No predicate names a state: state is in what
-- they skip, and an index that depends on it would be written on every change of it.
create index delivery_queue_due on delivery_queue (subscription_id, lane, visible_at);

-- History: append-only.
create table delivery (
    id uuid not null,
    event_id uuid not null,
    subscription_id uuid not null,
    settled_at timestamptz(3) not null,
    -- The last lease token, so that a later life of this delivery never repeats one.
    epoch integer not null,
    attempts integer not null,
    state text not null,
    workspace text collate "C" not null,
    constraint delivery_pk primary key (workspace, id),
    constraint delivery_state check (state in ('succeeded', 'failed', 'cancelled'))
);

create index delivery_of_subscription on delivery (subscription_id, id);

-- What operators look for among millions that went well. Rows here never change, so an index that
-- depends on their state costs nothing but those that are in it.
create index delivery_not_succeeded on delivery (workspace, id) where state <> 'succeeded';

create table attempt (
    delivery_id uuid not null,
    -- The lease it was made under: one lease, one attempt, however often its outcome is written.
    epoch integer not null,
    status integer,
    at timestamptz(3) not null,
    duration_ms bigint not null,
    workspace text collate "C" not null,
    trigger text not null,
    error text,
    -- JSON: [["name","value"],…] in the order they came.
    response_headers text not null,
    response_excerpt text not null,
    -- The lease was another's by the time of the settle: it counted for nothing.
    lease_lost boolean not null,
    constraint attempt_pk primary key (delivery_id, epoch)
);

create table subscription (
    id uuid not null,
    workspace text collate "C" not null,
    url text not null,
    description text not null,
    event_types text[] not null,
    project_ids text[],
    format text not null,
    max_concurrency bigint,
    retry_schedule_ms bigint[],
    status text not null default 'active',
    disabled_reason text,
    version bigint not null default 1,
    -- The value of `subscription_generation` at its last change: what tells the copies in memory.
    generation bigint not null,
    created_at timestamptz(3) not null default now(),
    updated_at timestamptz(3) not null default now(),
    deleted_at timestamptz(3),
    -- Nothing of it can be left in the queue: the sweeper need not look again.
    swept boolean not null default false,
    constraint subscription_pk primary key (id),
    constraint subscription_status check (status in ('active', 'disabled', 'deleted')),
    constraint subscription_reason check ((status = 'disabled') = (disabled_reason is not null)),
    constraint subscription_deleted check ((status = 'deleted') = (deleted_at is not null))
);

create index subscription_of_workspace on subscription (workspace, id) where status <> 'deleted';
create index subscription_generation_order on subscription (generation);
create index subscription_to_sweep on subscription (id) where status = 'deleted' and not swept;

-- Sealed under the master key, each for its own row.
create table subscription_secret (
    id uuid not null,
    subscription_id uuid not null,
    workspace text collate "C" not null,
    sealed bytea not null,
    created_at timestamptz(3) not null default now(),
    -- The end of its overlap after a rotation; null is the current one.
    expires_at timestamptz(3),
    constraint subscription_secret_pk primary key (id),
    constraint subscription_secret_subscription_fk
        foreign key (subscription_id) references subscription (id)
);

create index subscription_secret_of_subscription on subscription_secret (subscription_id, id);

-- One number for all changes of subscriptions. Whoever changes one raises it first and holds its row
-- to the commit, so that generations commit in their order.
create table subscription_generation (
    only_row boolean not null default true,
    generation bigint not null,
    constraint subscription_generation_pk primary key (only_row),
    constraint subscription_generation_one_row check (only_row)
);

insert into subscription_generation (generation) values (0);

-- A value sealed under the master key, by which a process tells at its start that its key is right.
create table master_key_check (
    only_row boolean not null default true,
    value bytea not null,
    constraint master_key_check_pk primary key (only_row),
    constraint master_key_check_one_row check (only_row)
);
