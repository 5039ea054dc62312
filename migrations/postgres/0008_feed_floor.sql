-- How much of a workspace's feed was removed.

-- Everything at or below the position is gone: a reader that has not come so far yet has missed some of
-- it, and is told. Written by the transaction that removes. No row: all of it is there.
create table event_feed_floor (
    workspace text collate "C" not null,
    position bigint not null,
    constraint event_feed_floor_pk primary key (workspace)
);
