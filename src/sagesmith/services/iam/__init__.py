"""IAM: the operations on users, roles and policies, and the decision on every request."""

from sagesmith.services.iam._authorizer import BucketPolicy, IamAuthorizer, ResourceTags
from sagesmith.services.iam._documents import check_document
from sagesmith.services.iam._keys import IdentityKeys

__all__ = ["BucketPolicy", "IamAuthorizer", "IdentityKeys", "ResourceTags", "check_document"]
