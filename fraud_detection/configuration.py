"""Reads the files that variables of the API name, before a start makes anything or opens a port."""

from fraud_detection.environment import BadSetting
from fraud_detection.features import FeatureList, load_features
from fraud_detection.remembered import features_file
from fraud_detection.settings import ApiSettings
from fraud_detection.token_file import BadTokenFile, read_tokens


def read_configuration(settings: ApiSettings) -> FeatureList:
    """Read the feature list and the file of named tokens, and return the list.

    Raises BadFeatureList, BadSetting.
    """
    features = load_features(features_file(settings))
    if settings.api_tokens_file is not None:
        try:
            read_tokens(settings.api_tokens_file)
        except BadTokenFile as error:
            raise BadSetting(f"API_TOKENS_FILE: {error}") from error
    return features
