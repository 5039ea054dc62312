-- Replay: deliveries that are sent again, or sooner, because somebody says so.

-- The queue has a third lane and knows what is replayed. (A check is changed by making the table
-- again; it is small.)
--   owner      null: pending, due at visible_at; else leased by that process until visible_at
--   epoch      how many leases there were: the lease token
--   lane       0 not tried yet, 1 tried and failed, 2 replayed
--   bytes      of the event's text, so that a claim can stop before it has read it
--   base       attempts made before the schedule that runs now began: a delivery that was replayed
--              after its schedule was spent has a new one, while its attempts count on
--   replayed   not null: the next attempt is a replay's, of a delivery that was this before. One that
--              had succeeded is in history all the while, and here for one more attempt
--   former_at  then: when it was due, or when it had failed
--   replay_id  then: the replay of many that it is one of
create table delivery_queue_with_replay (
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
    base            integer not null default 0,
    replayed        text,
    former_at       integer,
    replay_id       blob,
    constraint delivery_queue_pk primary key (delivery_id),
    constraint delivery_queue_lane check (lane in (0, 1, 2)),
    constraint delivery_queue_epoch check (epoch >= 0 and (owner is null or epoch > 0)),
    constraint delivery_queue_base check (base between 0 and attempts),
    constraint delivery_queue_replayed check (
        replayed is null or replayed in ('failed', 'succeeded', 'pending', 'unmade')
    ),
    constraint delivery_queue_replay check (replayed is not null or replay_id is null),
    constraint delivery_queue_former check (
        (former_at is not null) = (replayed is not null and replayed in ('failed', 'pending'))
    )
) strict, without rowid;

insert into delivery_queue_with_replay (delivery_id, event_id, workspace, subscription_id, lane,
    visible_at, owner, epoch, attempts, lost_leases, bytes)
select delivery_id, event_id, workspace, subscription_id, lane, visible_at, owner, epoch, attempts,
    lost_leases, bytes
from delivery_queue;

drop table delivery_queue;
alter table delivery_queue_with_replay rename to delivery_queue;

-- The one way in which the queue is searched: what of this subscription, in this lane, is due.
create index delivery_queue_due on delivery_queue (subscription_id, lane, visible_at);

-- What a replay of many has in the queue: never more than a bounded number.
create index delivery_queue_of_replay on delivery_queue (replay_id) where replay_id is not null;

-- Replays of many deliveries.
--   selection  which deliveries: JSON, read whole and never searched
--   projects   at which the reach of whoever asked ends: JSON; null is the whole workspace
--   state      pending: being counted
--   cursor     how far it came: JSON of the program's own
--   total      deliveries that were selected, as they were counted
--   queued     deliveries that were put into the queue, of which
--   done       were taken by their receivers, and
--   failed     were not
--   skipped    deliveries that could not be replayed, by the reason: JSON
--   finished_at  nothing of it is in the queue any more
create table replay (
    workspace   text    not null,
    id          blob    not null,
    selection   text    not null,
    projects    text,
    rate        integer not null,
    state       text    not null,
    cursor      text    not null,
    total       integer not null default 0,
    queued      integer not null default 0,
    done        integer not null default 0,
    failed      integer not null default 0,
    skipped     text    not null default '{}',
    created_by  text    not null,
    created_at  integer not null,
    finished_at integer,
    constraint replay_pk primary key (workspace, id),
    constraint replay_state check (state in ('pending', 'running', 'done', 'cancelled')),
    constraint replay_rate check (rate > 0),
    constraint replay_finished check (
        finished_at is null or state in ('done', 'cancelled')
    )
) strict, without rowid;

create index replay_unfinished on replay (id) where finished_at is null;
