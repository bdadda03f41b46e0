-- Written by `python -m sagesmith.store.migrations snapshot` from 2e2fc54d936fe5e405911bd0b3e94e5a
CREATE TABLE bucket_settings (
	bucket TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	document TEXT NOT NULL, 
	CONSTRAINT pk_bucket_settings PRIMARY KEY (bucket, kind)
);

CREATE TABLE buckets (
	name TEXT NOT NULL, 
	region TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	CONSTRAINT pk_buckets PRIMARY KEY (name)
);

CREATE TABLE events (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	time DOUBLE NOT NULL, 
	arn TEXT NOT NULL, 
	what TEXT NOT NULL, 
	"before" TEXT NOT NULL, 
	"after" TEXT NOT NULL, 
	why TEXT NOT NULL
);

CREATE INDEX ix_events_arn ON events (arn, id);

CREATE TABLE iam_changes (
	name TEXT NOT NULL, 
	number BIGINT NOT NULL, 
	CONSTRAINT pk_iam_changes PRIMARY KEY (name)
);

CREATE TABLE iam_entities (
	kind TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	document TEXT NOT NULL, 
	CONSTRAINT pk_iam_entities PRIMARY KEY (kind, "key")
);

CREATE TABLE iam_keys (
	access_key_id TEXT NOT NULL, 
	holder TEXT NOT NULL, 
	expires DOUBLE, 
	document TEXT NOT NULL, 
	CONSTRAINT pk_iam_keys PRIMARY KEY (access_key_id)
);

CREATE INDEX ix_iam_keys_expires ON iam_keys (expires);

CREATE INDEX ix_iam_keys_holder ON iam_keys (holder);

CREATE TABLE log_batches (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	group_id BIGINT NOT NULL, 
	stream_id BIGINT NOT NULL, 
	first_ms BIGINT NOT NULL, 
	last_ms BIGINT NOT NULL, 
	ingested_ms BIGINT NOT NULL, 
	data BLOB NOT NULL
);

CREATE INDEX ix_log_batches_first ON log_batches (stream_id, first_ms, id);

CREATE INDEX ix_log_batches_group ON log_batches (group_id, first_ms, id);

CREATE INDEX ix_log_batches_last ON log_batches (stream_id, last_ms, id);

CREATE TABLE log_groups (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	region TEXT NOT NULL, 
	name TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	retention_days INTEGER NOT NULL
);

CREATE UNIQUE INDEX ix_log_groups_name ON log_groups (region, name);

CREATE TABLE log_streams (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	group_id BIGINT NOT NULL, 
	name TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	first_ms BIGINT NOT NULL, 
	last_ms BIGINT NOT NULL, 
	ingested DOUBLE NOT NULL, 
	bytes BIGINT NOT NULL
);

CREATE INDEX ix_log_streams_last ON log_streams (group_id, last_ms, name);

CREATE UNIQUE INDEX ix_log_streams_name ON log_streams (group_id, name);

CREATE TABLE metric_points (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	series_id BIGINT NOT NULL, 
	period INTEGER NOT NULL, 
	time DOUBLE NOT NULL, 
	count DOUBLE NOT NULL, 
	sum DOUBLE NOT NULL, 
	minimum DOUBLE NOT NULL, 
	maximum DOUBLE NOT NULL, 
	sketch TEXT NOT NULL
);

CREATE INDEX ix_metric_points_period ON metric_points (period, time);

CREATE INDEX ix_metric_points_series ON metric_points (series_id, time);

CREATE TABLE metric_series (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	region TEXT NOT NULL, 
	namespace TEXT NOT NULL, 
	name TEXT NOT NULL, 
	dimensions TEXT NOT NULL, 
	unit TEXT NOT NULL, 
	last_time DOUBLE NOT NULL
);

CREATE UNIQUE INDEX ix_metric_series_key ON metric_series (region, namespace, name, dimensions);

CREATE TABLE object_contents (
	version TEXT NOT NULL, 
	data BLOB NOT NULL, 
	CONSTRAINT pk_object_contents PRIMARY KEY (version)
);

CREATE TABLE object_parts (
	upload TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	size BIGINT NOT NULL, 
	etag TEXT NOT NULL, 
	checksum TEXT NOT NULL, 
	modified DOUBLE NOT NULL, 
	file TEXT NOT NULL, 
	position BIGINT NOT NULL, 
	CONSTRAINT pk_object_parts PRIMARY KEY (upload, number)
)
 WITHOUT ROWID;

CREATE TABLE object_uploads (
	id TEXT NOT NULL, 
	bucket TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	initiator TEXT NOT NULL, 
	storage_class TEXT NOT NULL, 
	checksum_algorithm TEXT NOT NULL, 
	checksum_kind TEXT NOT NULL, 
	stride BIGINT NOT NULL, 
	file TEXT NOT NULL, 
	details TEXT NOT NULL, 
	CONSTRAINT pk_object_uploads PRIMARY KEY (id)
);

CREATE INDEX ix_object_uploads_key ON object_uploads (bucket, "key", id);

CREATE TABLE objects (
	bucket TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	version TEXT NOT NULL, 
	inline INTEGER NOT NULL, 
	size BIGINT NOT NULL, 
	etag TEXT NOT NULL, 
	modified DOUBLE NOT NULL, 
	storage_class TEXT NOT NULL, 
	checksum_algorithm TEXT NOT NULL, 
	checksum_kind TEXT NOT NULL, 
	checksum TEXT NOT NULL, 
	upload TEXT NOT NULL, 
	details TEXT NOT NULL, 
	CONSTRAINT pk_objects PRIMARY KEY (bucket, "key")
)
 WITHOUT ROWID;

CREATE INDEX ix_objects_version ON objects (version) WHERE inline = 0;

CREATE TABLE resources (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	kind TEXT NOT NULL, 
	region TEXT NOT NULL, 
	name TEXT NOT NULL, 
	arn TEXT NOT NULL, 
	arn_key TEXT NOT NULL, 
	status TEXT NOT NULL, 
	parent TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	modified DOUBLE NOT NULL, 
	version BIGINT NOT NULL, 
	owner TEXT NOT NULL, 
	lease_until DOUBLE NOT NULL, 
	summary TEXT NOT NULL, 
	document TEXT NOT NULL, 
	private TEXT NOT NULL
);

CREATE UNIQUE INDEX ix_resources_arn ON resources (arn_key);

CREATE INDEX ix_resources_created ON resources (kind, region, created, name);

CREATE INDEX ix_resources_modified ON resources (kind, region, modified, name);

CREATE UNIQUE INDEX ix_resources_name ON resources (kind, region, name);

CREATE INDEX ix_resources_parent ON resources (kind, region, parent, created, name);

CREATE INDEX ix_resources_status ON resources (kind, region, status, created, name);

CREATE TABLE tags (
	arn TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_tags PRIMARY KEY (arn, "key")
);

CREATE INDEX ix_tags_key ON tags ("key", value);
