-- How often it was looked, since the job was made, for an output that is not seen (yet): apart from
-- `tries`, since nothing was tried.
alter table output_job add column looks integer not null default 0;

-- Which deployment this is: what the names of its files begin with, since several may share a
-- place. Drawn at random, here and once.
create table deployment (
    only_row integer not null default 1,
    id       text    not null,
    constraint deployment_pk primary key (only_row),
    constraint deployment_one_row check (only_row = 1)
) strict;

insert into deployment (id) values (lower(hex(randomblob(8))));
