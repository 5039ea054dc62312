-- What a replay has in the queue is counted by the subscription, so that none takes the room of others.
drop index delivery_queue_of_replay;

create index delivery_queue_of_replay on delivery_queue (replay_id, subscription_id)
    where replay_id is not null;
