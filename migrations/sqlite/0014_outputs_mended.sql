-- How often it was looked, since the job was made, for an output that is not seen (yet): apart from
-- `tries`, since nothing was tried.
alter table output_job add column looks integer not null default 0;
