-- What was attempted and what came of it, counted by the minute and by the hour: statistics and charts
-- never look at deliveries.

-- What settles counted and nobody has folded into the rollups yet: appended only.
--   minute      in which the attempts began
--   succeeded, failed   deliveries
--   attempts_…  attempts, by what they were for their deliveries
--   duration_ms how long the attempts took, all together
--   within_…    how many took so many milliseconds at most; each attempt is in one column
create table rollup_delta (
    workspace          text    not null,
    subscription_id    blob    not null,
    minute             integer not null,
    succeeded          integer not null,
    failed             integer not null,
    attempts_succeeded integer not null,
    attempts_retried   integer not null,
    attempts_failed    integer not null,
    duration_ms        integer not null,
    within_5           integer not null,
    within_10          integer not null,
    within_25          integer not null,
    within_50          integer not null,
    within_100         integer not null,
    within_250         integer not null,
    within_500         integer not null,
    within_1000        integer not null,
    within_2500        integer not null,
    within_5000        integer not null,
    within_10000       integer not null,
    within_30000       integer not null,
    longer             integer not null
) strict;

-- `start` is the beginning of the minute or hour.
create table rollup (
    subscription_id    blob    not null,
    resolution         text    not null,
    start              integer not null,
    workspace          text    not null,
    succeeded          integer not null,
    failed             integer not null,
    attempts_succeeded integer not null,
    attempts_retried   integer not null,
    attempts_failed    integer not null,
    duration_ms        integer not null,
    within_5           integer not null,
    within_10          integer not null,
    within_25          integer not null,
    within_50          integer not null,
    within_100         integer not null,
    within_250         integer not null,
    within_500         integer not null,
    within_1000        integer not null,
    within_2500        integer not null,
    within_5000        integer not null,
    within_10000       integer not null,
    within_30000       integer not null,
    longer             integer not null,
    constraint rollup_pk primary key (subscription_id, resolution, start),
    constraint rollup_resolution check (resolution in ('minute', 'hour'))
) strict, without rowid;

-- In which order they go.
create index rollup_age on rollup (resolution, start);

-- From when on the rollups are whole. What was attempted before this migration was not counted.
create table rollup_floor (
    resolution text    not null,
    since      integer not null,
    constraint rollup_floor_pk primary key (resolution)
) strict, without rowid;

insert into rollup_floor (resolution, since)
values
    ('minute', cast(unixepoch('subsec') * 1000 as integer)),
    ('hour', cast(unixepoch('subsec') * 1000 as integer));
