-- Order per edition: deliveries of one edition to one subscription that pass one after the other.

-- `none`, or `edition`.
alter table subscription
    add column ordering text not null default 'none',
    add constraint subscription_ordering check (ordering in ('none', 'edition'));

-- A gate, while there is anything at it. Whoever queues at it, or leaves it, holds its row to the end
-- of the transaction: so its queue is seen by one at a time.
create table order_gate (
    subscription_id uuid not null,
    edition text collate "C" not null,
    workspace text collate "C" not null,
    -- How many deliveries are at it: the head, and those that wait behind it.
    depth bigint not null,
    -- The place of the last one that came.
    tail bigint not null,
    constraint order_gate_pk primary key (subscription_id, edition)
) with (
    -- Written with every batch, and gone as soon as nothing waits.
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.02,
    autovacuum_analyze_threshold = 5000
);

-- The gate (an edition) that a delivery is at, and its place there. Only the one with the lowest place
-- is ever due; the others are visible at `infinity`.
alter table delivery_queue
    add column gate text collate "C",
    add column ord bigint,
    add constraint delivery_queue_gate check ((gate is null) = (ord is null)),
    add constraint delivery_queue_blocked check (
        visible_at < 'infinity' or (gate is not null and owner is null)
    );

-- Who is next. What is at no gate is not in it.
create index delivery_queue_of_gate on delivery_queue (subscription_id, gate, ord)
    where gate is not null;
