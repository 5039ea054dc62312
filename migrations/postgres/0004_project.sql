-- The projects of a workspace: each that an event was about. Its row is written with the first of
-- them, by the transaction that keeps it; rows are never deleted.

-- Compared by their bytes, which is also the order they are listed in: the same in both databases.
create table project (
    workspace text collate "C" not null,
    id text collate "C" not null,
    -- Null until the core tells it.
    name text,
    first_seen_at timestamptz(3) not null default now(),
    constraint project_pk primary key (workspace, id)
);

insert into project (workspace, id, first_seen_at)
select workspace, project, min(accepted_at)
from event
where project is not null
group by workspace, project;
