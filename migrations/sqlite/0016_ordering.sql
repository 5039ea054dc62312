-- Order per edition: deliveries of one edition to one subscription that pass one after the other.

-- `none`, or `edition`.
alter table subscription add column ordering text not null default 'none'
    constraint subscription_ordering check (ordering in ('none', 'edition'));

-- A gate, while there is anything at it.
--   depth  how many deliveries are at it: the head, and those that wait behind it
--   tail   the place of the last one that came
create table order_gate (
    subscription_id blob    not null,
    edition         text    not null,
    workspace       text    not null,
    depth           integer not null,
    tail            integer not null,
    constraint order_gate_pk primary key (subscription_id, edition)
) strict, without rowid;

-- The gate (an edition) that a delivery is at, and its place there. Only the one with the lowest place
-- is ever due; the others are visible at the end of time (9223372036854775807).
alter table delivery_queue add column gate text;
alter table delivery_queue add column ord integer
    constraint delivery_queue_gate check ((gate is null) = (ord is null));

-- Who is next. What is at no gate is not in it.
create index delivery_queue_of_gate on delivery_queue (subscription_id, gate, ord)
    where gate is not null;
