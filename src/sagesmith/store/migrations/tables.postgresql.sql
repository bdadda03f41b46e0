-- Written by `python -m sagesmith.store.migrations snapshot` from 2e2fc54d936fe5e405911bd0b3e94e5a
CREATE TABLE bucket_settings (
	bucket TEXT COLLATE "C" NOT NULL, 
	kind TEXT COLLATE "C" NOT NULL, 
	document TEXT NOT NULL, 
	CONSTRAINT pk_bucket_settings PRIMARY KEY (bucket, kind)
);

COMMENT ON COLUMN bucket_settings.document IS 'JSON; null: removed, where S3 has a default';

CREATE TABLE buckets (
	name TEXT COLLATE "C" NOT NULL, 
	region TEXT COLLATE "C" NOT NULL, 
	owner TEXT COLLATE "C" NOT NULL, 
	created DOUBLE PRECISION NOT NULL, 
	CONSTRAINT pk_buckets PRIMARY KEY (name)
);

COMMENT ON COLUMN buckets.owner IS 'account';

CREATE TABLE events (
	id BIGSERIAL NOT NULL, 
	time DOUBLE PRECISION NOT NULL, 
	arn TEXT COLLATE "C" NOT NULL, 
	what TEXT COLLATE "C" NOT NULL, 
	before TEXT COLLATE "C" NOT NULL, 
	after TEXT COLLATE "C" NOT NULL, 
	why TEXT COLLATE "C" NOT NULL, 
	CONSTRAINT pk_events PRIMARY KEY (id)
);

CREATE INDEX ix_events_arn ON events (arn, id);

COMMENT ON COLUMN events.arn IS 'in lower case';

CREATE TABLE iam_changes (
	name TEXT COLLATE "C" NOT NULL, 
	number BIGINT NOT NULL, 
	CONSTRAINT pk_iam_changes PRIMARY KEY (name)
);

COMMENT ON COLUMN iam_changes.name IS 'always ''all''';

COMMENT ON COLUMN iam_changes.number IS 'rises with each change';

CREATE TABLE iam_entities (
	kind TEXT COLLATE "C" NOT NULL, 
	key TEXT COLLATE "C" NOT NULL, 
	document TEXT NOT NULL, 
	CONSTRAINT pk_iam_entities PRIMARY KEY (kind, key)
);

COMMENT ON COLUMN iam_entities.kind IS 'user, group, role or policy';

COMMENT ON COLUMN iam_entities.key IS 'name (a policy''s ARN) in lower case';

CREATE TABLE iam_keys (
	access_key_id TEXT COLLATE "C" NOT NULL, 
	holder TEXT COLLATE "C" NOT NULL, 
	expires DOUBLE PRECISION, 
	document TEXT NOT NULL, 
	CONSTRAINT pk_iam_keys PRIMARY KEY (access_key_id)
);

CREATE INDEX ix_iam_keys_expires ON iam_keys (expires);

CREATE INDEX ix_iam_keys_holder ON iam_keys (holder);

COMMENT ON COLUMN iam_keys.holder IS 'kind/name in lower case';

COMMENT ON COLUMN iam_keys.expires IS 'null: never';

CREATE TABLE log_batches (
	id BIGSERIAL NOT NULL, 
	group_id BIGINT NOT NULL, 
	stream_id BIGINT NOT NULL, 
	first_ms BIGINT NOT NULL, 
	last_ms BIGINT NOT NULL, 
	ingested_ms BIGINT NOT NULL, 
	data BYTEA NOT NULL, 
	CONSTRAINT pk_log_batches PRIMARY KEY (id)
);

CREATE INDEX ix_log_batches_first ON log_batches (stream_id, first_ms, id);

CREATE INDEX ix_log_batches_group ON log_batches (group_id, first_ms, id);

CREATE INDEX ix_log_batches_last ON log_batches (stream_id, last_ms, id);

COMMENT ON COLUMN log_batches.data IS 'see log_batches.py';

CREATE TABLE log_groups (
	id BIGSERIAL NOT NULL, 
	region TEXT COLLATE "C" NOT NULL, 
	name TEXT COLLATE "C" NOT NULL, 
	created DOUBLE PRECISION NOT NULL, 
	retention_days INTEGER NOT NULL, 
	CONSTRAINT pk_log_groups PRIMARY KEY (id)
);

CREATE UNIQUE INDEX ix_log_groups_name ON log_groups (region, name);

COMMENT ON COLUMN log_groups.retention_days IS '0: kept for ever';

CREATE TABLE log_streams (
	id BIGSERIAL NOT NULL, 
	group_id BIGINT NOT NULL, 
	name TEXT COLLATE "C" NOT NULL, 
	created DOUBLE PRECISION NOT NULL, 
	first_ms BIGINT NOT NULL, 
	last_ms BIGINT NOT NULL, 
	ingested DOUBLE PRECISION NOT NULL, 
	bytes BIGINT NOT NULL, 
	CONSTRAINT pk_log_streams PRIMARY KEY (id)
);

CREATE INDEX ix_log_streams_last ON log_streams (group_id, last_ms, name);

CREATE UNIQUE INDEX ix_log_streams_name ON log_streams (group_id, name);

COMMENT ON COLUMN log_streams.first_ms IS '0: no event yet';

COMMENT ON COLUMN log_streams.last_ms IS '0: no event yet';

COMMENT ON COLUMN log_streams.ingested IS '0: no event yet';

CREATE TABLE metric_points (
	id BIGSERIAL NOT NULL, 
	series_id BIGINT NOT NULL, 
	period INTEGER NOT NULL, 
	time DOUBLE PRECISION NOT NULL, 
	count DOUBLE PRECISION NOT NULL, 
	sum DOUBLE PRECISION NOT NULL, 
	minimum DOUBLE PRECISION NOT NULL, 
	maximum DOUBLE PRECISION NOT NULL, 
	sketch TEXT NOT NULL, 
	CONSTRAINT pk_metric_points PRIMARY KEY (id)
);

CREATE INDEX ix_metric_points_period ON metric_points (period, time);

CREATE INDEX ix_metric_points_series ON metric_points (series_id, time);

COMMENT ON COLUMN metric_points.period IS 'seconds the point stands for';

COMMENT ON COLUMN metric_points.time IS 'its start';

COMMENT ON COLUMN metric_points.sketch IS 'see metric_summaries.py';

CREATE TABLE metric_series (
	id BIGSERIAL NOT NULL, 
	region TEXT COLLATE "C" NOT NULL, 
	namespace TEXT COLLATE "C" NOT NULL, 
	name TEXT COLLATE "C" NOT NULL, 
	dimensions TEXT COLLATE "C" NOT NULL, 
	unit TEXT COLLATE "C" NOT NULL, 
	last_time DOUBLE PRECISION NOT NULL, 
	CONSTRAINT pk_metric_series PRIMARY KEY (id)
);

CREATE UNIQUE INDEX ix_metric_series_key ON metric_series (region, namespace, name, dimensions);

COMMENT ON COLUMN metric_series.dimensions IS 'JSON object with sorted keys';

COMMENT ON COLUMN metric_series.unit IS 'of the latest datum';

CREATE TABLE object_contents (
	version TEXT COLLATE "C" NOT NULL, 
	data BYTEA NOT NULL, 
	CONSTRAINT pk_object_contents PRIMARY KEY (version)
);

CREATE TABLE object_parts (
	upload TEXT COLLATE "C" NOT NULL, 
	number INTEGER NOT NULL, 
	size BIGINT NOT NULL, 
	etag TEXT COLLATE "C" NOT NULL, 
	checksum TEXT COLLATE "C" NOT NULL, 
	modified DOUBLE PRECISION NOT NULL, 
	file TEXT COLLATE "C" NOT NULL, 
	position BIGINT NOT NULL, 
	CONSTRAINT pk_object_parts PRIMARY KEY (upload, number)
);

COMMENT ON COLUMN object_parts.file IS 'empty once the object is complete';

COMMENT ON COLUMN object_parts.position IS 'where it begins in the file';

CREATE TABLE object_uploads (
	id TEXT COLLATE "C" NOT NULL, 
	bucket TEXT COLLATE "C" NOT NULL, 
	key TEXT COLLATE "C" NOT NULL, 
	created DOUBLE PRECISION NOT NULL, 
	initiator TEXT COLLATE "C" NOT NULL, 
	storage_class TEXT COLLATE "C" NOT NULL, 
	checksum_algorithm TEXT COLLATE "C" NOT NULL, 
	checksum_kind TEXT COLLATE "C" NOT NULL, 
	stride BIGINT NOT NULL, 
	file TEXT COLLATE "C" NOT NULL, 
	details TEXT NOT NULL, 
	CONSTRAINT pk_object_uploads PRIMARY KEY (id)
);

CREATE INDEX ix_object_uploads_key ON object_uploads (bucket, key, id);

COMMENT ON COLUMN object_uploads.initiator IS 'ARN';

COMMENT ON COLUMN object_uploads.stride IS '0 until the first part: see uploads.py';

COMMENT ON COLUMN object_uploads.file IS 'where parts are put side by side';

CREATE TABLE objects (
	bucket TEXT COLLATE "C" NOT NULL, 
	key TEXT COLLATE "C" NOT NULL, 
	version TEXT COLLATE "C" NOT NULL, 
	inline INTEGER NOT NULL, 
	size BIGINT NOT NULL, 
	etag TEXT COLLATE "C" NOT NULL, 
	modified DOUBLE PRECISION NOT NULL, 
	storage_class TEXT COLLATE "C" NOT NULL, 
	checksum_algorithm TEXT COLLATE "C" NOT NULL, 
	checksum_kind TEXT COLLATE "C" NOT NULL, 
	checksum TEXT COLLATE "C" NOT NULL, 
	upload TEXT COLLATE "C" NOT NULL, 
	details TEXT NOT NULL, 
	CONSTRAINT pk_objects PRIMARY KEY (bucket, key)
);

CREATE INDEX ix_objects_version ON objects (version) WHERE inline = 0;

COMMENT ON COLUMN objects.version IS 'names the file, or the row of object_contents';

COMMENT ON COLUMN objects.inline IS '1: the content lies in object_contents';

COMMENT ON COLUMN objects.etag IS 'without quotes';

COMMENT ON COLUMN objects.checksum_algorithm IS 'empty: none';

COMMENT ON COLUMN objects.upload IS 'the multipart upload that made it, or empty';

COMMENT ON COLUMN objects.details IS 'JSON: members, metadata, tags';

CREATE TABLE resources (
	id BIGSERIAL NOT NULL, 
	kind TEXT COLLATE "C" NOT NULL, 
	region TEXT COLLATE "C" NOT NULL, 
	name TEXT COLLATE "C" NOT NULL, 
	arn TEXT COLLATE "C" NOT NULL, 
	arn_key TEXT COLLATE "C" NOT NULL, 
	status TEXT COLLATE "C" NOT NULL, 
	parent TEXT COLLATE "C" NOT NULL, 
	created DOUBLE PRECISION NOT NULL, 
	modified DOUBLE PRECISION NOT NULL, 
	version BIGINT NOT NULL, 
	owner TEXT COLLATE "C" NOT NULL, 
	lease_until DOUBLE PRECISION NOT NULL, 
	summary TEXT NOT NULL, 
	document TEXT NOT NULL, 
	private TEXT NOT NULL, 
	CONSTRAINT pk_resources PRIMARY KEY (id)
);

CREATE UNIQUE INDEX ix_resources_arn ON resources (arn_key);

CREATE INDEX ix_resources_created ON resources (kind, region, created, name);

CREATE INDEX ix_resources_modified ON resources (kind, region, modified, name);

CREATE UNIQUE INDEX ix_resources_name ON resources (kind, region, name);

CREATE INDEX ix_resources_parent ON resources (kind, region, parent, created, name);

CREATE INDEX ix_resources_status ON resources (kind, region, status, created, name);

COMMENT ON COLUMN resources.arn_key IS 'the ARN in lower case';

COMMENT ON COLUMN resources.version IS 'the id of the event that made this state';

COMMENT ON COLUMN resources.summary IS 'JSON, as lists show the resource';

COMMENT ON COLUMN resources.document IS 'JSON without the private members';

COMMENT ON COLUMN resources.private IS 'JSON of the members that begin with $, or empty';

CREATE TABLE tags (
	arn TEXT COLLATE "C" NOT NULL, 
	key TEXT COLLATE "C" NOT NULL, 
	value TEXT COLLATE "C" NOT NULL, 
	CONSTRAINT pk_tags PRIMARY KEY (arn, key)
);

CREATE INDEX ix_tags_key ON tags (key, value);

COMMENT ON COLUMN tags.arn IS 'in lower case';
