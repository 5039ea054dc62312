-- What the audit log is looked through for: an address among all uses, and the acts of people among
-- millions of uses.

create index audit_log_of_address on audit_log (workspace, address, id) where address is not null;

create index audit_log_of_acts on audit_log (workspace, action, id) where action <> 'request';
