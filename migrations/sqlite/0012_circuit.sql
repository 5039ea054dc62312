-- Receivers that fail are left alone for a while, and none gets more than it wants.

-- What is remembered of a subscription's receiver: a row while there is anything to remember.
--   state      watched: sent, with failures of late; open: waiting, but for probes; recovering: sent at
--              a rate that grows until `until`
--   until      of an open one: when the next probe is sent
--   pause_ms   how long it was from the last failure to that
--   probing    whether a probe is leased
create table circuit (
    subscription_id blob    not null,
    workspace       text    not null,
    state           text    not null,
    since           integer,
    until           integer,
    pause_ms        integer,
    probing         integer not null,
    failures_in_row integer not null,
    window_began    integer not null,
    window_attempts integer not null,
    window_failures integer not null,
    failing_since   integer,
    constraint circuit_pk primary key (subscription_id),
    constraint circuit_state check (state in ('watched', 'open', 'recovering')),
    constraint circuit_times check (
        (state = 'watched') = (since is null)
        and (state = 'watched') = (until is null)
        and (state = 'watched') = (pause_ms is null)
    )
) strict, without rowid;

-- Deliveries a second, from all replicas together; null is no limit.
alter table subscription add column rate_limit integer;

-- Of a disabled one: from when on it has missed events, or may have.
alter table subscription add column missing_since integer;
update subscription set missing_since = updated_at where status = 'disabled';

-- The processes that send: who shares a limit. (One process serves a file; the table is here for the
-- schemas to be the same.)
create table replica (
    owner blob    not null,
    until integer not null,
    constraint replica_pk primary key (owner)
) strict, without rowid;
