-- What we tell others over the broker, and who of several processes does what only one may do.

-- Leaders. A row is never deleted: its fence grows with each taking, so that what a leader of before
-- asks for is told from what the leader of now asks for.
create table lease (
    name text collate "C" not null,
    owner uuid not null,
    fence bigint not null,
    until timestamptz not null,
    constraint lease_pk primary key (name),
    constraint lease_fence check (fence > 0)
) with (
    -- Room beside each row for its next versions: renewed every few seconds.
    fillfactor = 50
);

-- Events of our own on their way to the broker, written by the transaction that they tell of and
-- deleted once the broker has confirmed them. `seq` is their order within a key.
create table outbox (
    seq bigint generated always as identity,
    workspace text collate "C" not null,
    -- The edition that the event is about; null where there is none, and then no order.
    key text collate "C",
    -- The id of the envelope, as the broker's message has it.
    message_id text not null,
    type text not null,
    body text not null,
    -- Of the body, so that a batch can stop before it has read it.
    bytes integer not null,
    appended_at timestamptz(3) not null default now(),
    constraint outbox_pk primary key (seq)
);
