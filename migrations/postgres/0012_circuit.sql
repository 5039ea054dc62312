-- Receivers that fail are left alone for a while, and none gets more than it wants.

-- What is remembered of a subscription's receiver: a row while there is anything to remember.
create table circuit (
    subscription_id uuid not null,
    workspace text collate "C" not null,
    -- watched: sent, with failures of late; open: waiting, but for probes; recovering: sent at a rate
    -- that grows until `until`.
    state text not null,
    since timestamptz(3),
    -- Of an open one: when the next probe is sent.
    until timestamptz(3),
    -- How long it was from the last failure to that.
    pause_ms bigint,
    -- Whether a probe is leased.
    probing boolean not null,
    failures_in_row bigint not null,
    window_began timestamptz(3) not null,
    window_attempts bigint not null,
    window_failures bigint not null,
    failing_since timestamptz(3),
    constraint circuit_pk primary key (subscription_id),
    constraint circuit_state check (state in ('watched', 'open', 'recovering')),
    constraint circuit_times check (
        (state = 'watched') = (since is null)
        and (state = 'watched') = (until is null)
        and (state = 'watched') = (pause_ms is null)
    )
) with (
    -- Room beside each row for its next versions: written with every batch while a receiver fails.
    fillfactor = 50
);

-- Deliveries a second, from all replicas together; null is no limit.
alter table subscription add column rate_limit bigint;

-- Of a disabled one: from when on it has missed events, or may have.
alter table subscription add column missing_since timestamptz(3);
update subscription set missing_since = updated_at where status = 'disabled';

-- The processes that send: who shares a limit. A row is refreshed every few seconds.
create table replica (
    owner uuid not null,
    until timestamptz not null,
    constraint replica_pk primary key (owner)
);
