-- What removing the old needs to know that the tables do not say in an order of time.

-- When each key of an event was made known, in that order. Written when the event is removed, or with
-- the outbox for events that are kept nowhere else: accept, which is in a hurry, keeps no such list.
create table event_key_age (
    at timestamptz(3) not null,
    key uuid not null,
    constraint event_key_age_pk primary key (at, key)
);

insert into event_key_age (at, key)
select at, key
from event_key
where not exists (select from event where event.id = event_key.event_id);

-- Up to which attempt (in the order of the primary key) the answers of receivers were removed.
create table attempt_mark (
    only_row boolean not null default true,
    delivery_id uuid not null,
    epoch integer not null,
    constraint attempt_mark_pk primary key (only_row),
    constraint attempt_mark_one_row check (only_row)
);

insert into attempt_mark (delivery_id, epoch) values ('00000000-0000-0000-0000-000000000000', 0);

-- Later attempts at one delivery, and a replay's, may come behind the mark, long after the event: they
-- are found by their time. First attempts, which nearly all are, are not in here.
create index attempt_again on attempt (at)
    where (epoch > 1 or trigger = 'replay')
        and (response_headers <> '[]' or response_excerpt <> '');
