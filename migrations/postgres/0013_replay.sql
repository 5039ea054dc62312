-- Replay: deliveries that are sent again, or sooner, because somebody says so.

alter table delivery_queue
    -- Attempts made before the schedule that runs now began: a delivery that was replayed after its
    -- schedule was spent has a new one, while its attempts count on.
    add column base integer not null default 0,
    -- Not null: the next attempt is a replay's, of a delivery that was this before. One that had
    -- succeeded is in history all the while, and here for one more attempt.
    add column replayed text,
    -- Then: when it was due, or when it had failed.
    add column former_at timestamptz,
    -- Then: the replay of many that it is one of.
    add column replay_id uuid,
    drop constraint delivery_queue_lane,
    -- 0 fresh, 1 retry, 2 replay.
    add constraint delivery_queue_lane check (lane in (0, 1, 2)),
    add constraint delivery_queue_base check (base between 0 and attempts),
    add constraint delivery_queue_replayed check (
        replayed is null or replayed in ('failed', 'succeeded', 'pending', 'unmade')
    ),
    add constraint delivery_queue_replay check (replayed is not null or replay_id is null),
    add constraint delivery_queue_former check (
        (former_at is not null) = (replayed is not null and replayed in ('failed', 'pending'))
    );

-- What a replay of many has in the queue: never more than a bounded number.
create index delivery_queue_of_replay on delivery_queue (replay_id) where replay_id is not null;

-- Replays of many deliveries.
create table replay (
    id uuid not null,
    workspace text collate "C" not null,
    -- Which deliveries: JSON, read whole and never searched.
    selection text not null,
    -- At which the reach of whoever asked ends; null is the whole workspace.
    projects text[],
    rate bigint not null,
    -- `pending`: being counted.
    state text not null,
    -- How far it came: JSON of the program's own.
    cursor text not null,
    -- Deliveries that were selected, as they were counted.
    total bigint not null default 0,
    -- Deliveries that were put into the queue, of which
    queued bigint not null default 0,
    -- were taken by their receivers, and
    done bigint not null default 0,
    -- were not.
    failed bigint not null default 0,
    -- Deliveries that could not be replayed, by the reason: JSON.
    skipped text not null default '{}',
    created_by text not null,
    created_at timestamptz(3) not null default now(),
    -- Nothing of it is in the queue any more.
    finished_at timestamptz(3),
    constraint replay_pk primary key (workspace, id),
    constraint replay_state check (state in ('pending', 'running', 'done', 'cancelled')),
    constraint replay_rate check (rate > 0),
    constraint replay_finished check (finished_at is null or state in ('done', 'cancelled'))
);

create index replay_unfinished on replay (id) where finished_at is null;
