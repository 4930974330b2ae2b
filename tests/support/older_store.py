"""Make a store of an earlier revision, as the version that had it would have made it."""

import json
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from fraud_detection.database.engine import create_engine
from fraud_detection.features import FeatureList
from fraud_detection.schema import tables
from fraud_detection.store import Store


def make_older_store(revision: int, location: str | Path, features: FeatureList) -> Store:
    """Make an empty store of a revision, and open it as a job of today does."""
    engine = create_engine(location)
    config = Config()
    config.set_main_option("script_location", "fraud_detection:migrations")
    facts = {
        "features": json.dumps(features.names),
        "features_digest": features.digest,
        "oldest_writer": str(revision),
    }
    with engine.begin() as connection:
        config.attributes.update(connection=connection, features=features)
        command.upgrade(config, f"{revision:04d}")
        meta = tables(features.names, revision).schema_meta
        connection.execute(sa.insert(meta), [{"key": key, "value": value} for key, value in facts.items()])
    engine.dispose()
    return Store.open(location, features)
