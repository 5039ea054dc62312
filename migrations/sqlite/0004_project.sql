-- The projects of a workspace: each that an event was about. Its row is written with the first of
-- them, by the transaction that keeps it; rows are never deleted.
create table project (
    workspace     text    not null,
    id            text    not null,
    -- Null until the core tells it.
    name          text,
    first_seen_at integer not null,
    constraint project_pk primary key (workspace, id)
) strict, without rowid;

insert into project (workspace, id, first_seen_at)
select workspace, project, min(accepted_at)
from event
where project is not null
group by workspace, project;
