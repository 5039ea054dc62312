-- Jobs are taken by share: files of the core's, and all else.
drop index output_job_due;
create index output_job_due on output_job ((task = 'fetch'), visible_at);
