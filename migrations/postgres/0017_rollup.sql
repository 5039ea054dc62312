-- What was attempted and what came of it, counted by the minute and by the hour: statistics and charts
-- never look at deliveries.

-- What settles counted and nobody has folded into the rollups yet: appended only, in no order, without
-- key or index, so that nobody waits there for anybody.
create table rollup_delta (
    workspace text collate "C" not null,
    subscription_id uuid not null,
    -- In which the attempts began.
    minute timestamptz not null,
    -- Deliveries.
    succeeded bigint not null,
    failed bigint not null,
    -- Attempts, by what they were for their deliveries.
    attempts_succeeded bigint not null,
    attempts_retried bigint not null,
    attempts_failed bigint not null,
    -- How long the attempts took: all together, and how many so many milliseconds at most (each attempt
    -- is in one column).
    duration_ms bigint not null,
    within_5 bigint not null,
    within_10 bigint not null,
    within_25 bigint not null,
    within_50 bigint not null,
    within_100 bigint not null,
    within_250 bigint not null,
    within_500 bigint not null,
    within_1000 bigint not null,
    within_2500 bigint not null,
    within_5000 bigint not null,
    within_10000 bigint not null,
    within_30000 bigint not null,
    longer bigint not null
) with (
    -- Rows live for seconds, as in the queue.
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

create table rollup (
    subscription_id uuid not null,
    resolution text collate "C" not null,
    -- The beginning of the minute or hour.
    start timestamptz not null,
    workspace text collate "C" not null,
    succeeded bigint not null,
    failed bigint not null,
    attempts_succeeded bigint not null,
    attempts_retried bigint not null,
    attempts_failed bigint not null,
    duration_ms bigint not null,
    within_5 bigint not null,
    within_10 bigint not null,
    within_25 bigint not null,
    within_50 bigint not null,
    within_100 bigint not null,
    within_250 bigint not null,
    within_500 bigint not null,
    within_1000 bigint not null,
    within_2500 bigint not null,
    within_5000 bigint not null,
    within_10000 bigint not null,
    within_30000 bigint not null,
    longer bigint not null,
    constraint rollup_pk primary key (subscription_id, resolution, start),
    constraint rollup_resolution check (resolution in ('minute', 'hour'))
) with (
    -- Room beside each row for its next versions: the present minute's and hour's are written every few
    -- seconds.
    fillfactor = 70
);

-- In which order they go.
create index rollup_age on rollup (resolution, start);

-- From when on the rollups are whole. What was attempted before this migration was not counted.
create table rollup_floor (
    resolution text collate "C" not null,
    since timestamptz not null,
    constraint rollup_floor_pk primary key (resolution)
);

insert into rollup_floor (resolution, since)
values ('minute', now()), ('hour', now());
