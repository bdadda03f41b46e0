"""AWS managed policies, as far as their services are here: what users attach by ``arn:aws:iam::aws:policy/...``.

Written after AWS's policies of the same names. The SDKs check roles by simulation before they use them, so the
lists name actions of services, too, that are not here; what no client asks for is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

__all__ = ["managed_policies", "managed_policy_document"]


def _allow(actions: str | Sequence[str], resources: str | Sequence[str] = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources, **more}


def _passed_to(*services: str) -> dict[str, Any]:
    return {"Condition": {"StringEquals": {"iam:PassedToService": list(services)}}}


_SAGEMAKER_BUCKETS: Final = [
    "arn:aws:s3:::*SageMaker*",
    "arn:aws:s3:::*Sagemaker*",
    "arn:aws:s3:::*sagemaker*",
]

_STUDIO: Final = [
    f"arn:aws:sagemaker:*:*:{kind}/*"
    for kind in ("domain", "user-profile", "app", "space", "partner-app", "flow-definition")
]

_SAGEMAKER_FULL: Final = [
    {
        "Sid": "AllowAllNonAdminSageMakerActions",
        "Effect": "Allow",
        "Action": ["sagemaker:*", "sagemaker-geospatial:*"],
        "NotResource": _STUDIO,
    },
    _allow("sagemaker:AddTags", _STUDIO[:4], Condition={"Null": {"sagemaker:TaggingAction": "false"}}),
    _allow(
        [
            "sagemaker:CreatePresignedDomainUrl",
            "sagemaker:DescribeApp",
            "sagemaker:DescribeDomain",
            "sagemaker:DescribeSpace",
            "sagemaker:DescribeUserProfile",
            "sagemaker:ListApps",
            "sagemaker:ListDomains",
            "sagemaker:ListSpaces",
            "sagemaker:ListUserProfiles",
        ]
    ),
    _allow(["sagemaker:CreateApp", "sagemaker:DeleteApp", "sagemaker:CreateSpace", "sagemaker:UpdateSpace"]),
    _allow("sagemaker:*", _STUDIO[5]),
    _allow(
        [
            "application-autoscaling:DeleteScalingPolicy",
            "application-autoscaling:DeleteScheduledAction",
            "application-autoscaling:DeregisterScalableTarget",
            "application-autoscaling:DescribeScalableTargets",
            "application-autoscaling:DescribeScalingActivities",
            "application-autoscaling:DescribeScalingPolicies",
            "application-autoscaling:DescribeScheduledActions",
            "application-autoscaling:PutScalingPolicy",
            "application-autoscaling:PutScheduledAction",
            "application-autoscaling:RegisterScalableTarget",
            "cloudwatch:DeleteAlarms",
            "cloudwatch:DescribeAlarms",
            "cloudwatch:GetMetricData",
            "cloudwatch:GetMetricStatistics",
            "cloudwatch:ListMetrics",
            "cloudwatch:PutMetricAlarm",
            "cloudwatch:PutMetricData",
            "cognito-idp:Describe*",
            "cognito-idp:List*",
            "ec2:CreateNetworkInterface",
            "ec2:CreateNetworkInterfacePermission",
            "ec2:CreateVpcEndpoint",
            "ec2:DeleteNetworkInterface",
            "ec2:DeleteNetworkInterfacePermission",
            "ec2:DescribeDhcpOptions",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeRouteTables",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcEndpoints",
            "ec2:DescribeVpcs",
            "ecr:BatchCheckLayerAvailability",
            "ecr:BatchGetImage",
            "ecr:CreateRepository",
            "ecr:Describe*",
            "ecr:GetAuthorizationToken",
            "ecr:GetDownloadUrlForLayer",
            "ecr:StartImageScan",
            "elasticfilesystem:DescribeFileSystems",
            "elasticfilesystem:DescribeMountTargets",
            "fsx:DescribeFileSystems",
            "glue:CreateJob",
            "glue:DeleteJob",
            "glue:GetJob*",
            "glue:GetTable*",
            "glue:GetWorkflowRun",
            "glue:ResetJobBookmark",
            "glue:StartJobRun",
            "glue:StartWorkflowRun",
            "glue:UpdateJob",
            "groundtruthlabeling:*",
            "iam:ListRoles",
            "kms:DescribeKey",
            "kms:ListAliases",
            "lambda:ListFunctions",
            "logs:CreateLogDelivery",
            "logs:CreateLogGroup",
            "logs:CreateLogStream",
            "logs:DeleteLogDelivery",
            "logs:Describe*",
            "logs:GetLogDelivery",
            "logs:GetLogEvents",
            "logs:ListLogDeliveries",
            "logs:PutLogEvents",
            "logs:PutResourcePolicy",
            "logs:UpdateLogDelivery",
            "secretsmanager:ListSecrets",
            "sns:ListTopics",
            "tag:GetResources",
        ]
    ),
    _allow(
        [
            "ecr:SetRepositoryPolicy",
            "ecr:CompleteLayerUpload",
            "ecr:BatchDeleteImage",
            "ecr:UploadLayerPart",
            "ecr:DeleteRepositoryPolicy",
            "ecr:InitiateLayerUpload",
            "ecr:DeleteRepository",
            "ecr:PutImage",
        ],
        "arn:aws:ecr:*:*:repository/*sagemaker*",
    ),
    _allow(
        ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
        [*_SAGEMAKER_BUCKETS, "arn:aws:s3:::*aws-glue*"],
    ),
    _allow("s3:GetObject", Condition={"StringEqualsIgnoreCase": {"s3:ExistingObjectTag/SageMaker": "true"}}),
    _allow(
        [
            "s3:CreateBucket",
            "s3:GetBucketLocation",
            "s3:ListBucket",
            "s3:ListAllMyBuckets",
            "s3:GetBucketCors",
            "s3:PutBucketCors",
        ]
    ),
    _allow(["s3:GetBucketAcl", "s3:PutObjectAcl"], _SAGEMAKER_BUCKETS),
    _allow(
        "lambda:InvokeFunction",
        [f"arn:aws:lambda:*:*:function:*{name}*" for name in ("SageMaker", "sagemaker", "Sagemaker")],
    ),
    _allow("iam:CreateServiceLinkedRole", "arn:aws:iam::*:role/aws-service-role/*"),
    _allow(
        "iam:PassRole",
        "arn:aws:iam::*:role/*AmazonSageMaker*",
        **_passed_to("glue.amazonaws.com", "robomaker.amazonaws.com", "states.amazonaws.com"),
    ),
    _allow("iam:PassRole", "arn:aws:iam::*:role/*", **_passed_to("sagemaker.amazonaws.com")),
]

_READ_ONLY: Final = [
    _allow(
        [
            "application-autoscaling:Describe*",
            "application-autoscaling:List*",
            "cloudwatch:Describe*",
            "cloudwatch:Get*",
            "cloudwatch:List*",
            "ecr:BatchCheck*",
            "ecr:BatchGet*",
            "ecr:Describe*",
            "ecr:Get*",
            "ecr:List*",
            "iam:Generate*",
            "iam:Get*",
            "iam:List*",
            "iam:Simulate*",
            "logs:Describe*",
            "logs:FilterLogEvents",
            "logs:Get*",
            "logs:List*",
            "logs:StartQuery",
            "logs:StopQuery",
            "logs:TestMetricFilter",
            "s3:DescribeJob",
            "s3:Get*",
            "s3:List*",
            "sagemaker:Describe*",
            "sagemaker:GetSearchSuggestions",
            "sagemaker:List*",
            "sagemaker:Search",
            "sts:GetAccessKeyInfo",
            "sts:GetCallerIdentity",
            "sts:GetSessionToken",
            "tag:Get*",
        ]
    )
]

_STATEMENTS: Final[Mapping[str, Sequence[Mapping[str, Any]]]] = {
    "AdministratorAccess": [_allow("*")],
    "PowerUserAccess": [
        {
            "Effect": "Allow",
            "NotAction": ["iam:*", "organizations:*", "account:*"],
            "Resource": "*",
        },
        _allow(
            [
                "account:GetAccountInformation",
                "account:ListRegions",
                "iam:CreateServiceLinkedRole",
                "iam:DeleteServiceLinkedRole",
                "iam:ListRoles",
                "organizations:DescribeOrganization",
            ]
        ),
    ],
    "ReadOnlyAccess": _READ_ONLY,
    "ViewOnlyAccess": [
        _allow(
            [
                "cloudwatch:Describe*",
                "cloudwatch:Get*",
                "cloudwatch:List*",
                "ecr:DescribeRepositories",
                "iam:Get*",
                "iam:List*",
                "logs:Describe*",
                "logs:List*",
                "s3:ListAllMyBuckets",
                "s3:ListBucket",
                "sagemaker:Describe*",
                "sagemaker:List*",
            ]
        )
    ],
    "AWSDenyAll": [{"Sid": "DenyAll", "Effect": "Deny", "Action": ["*"], "Resource": "*"}],
    "AmazonSageMakerFullAccess": _SAGEMAKER_FULL,
    "AmazonSageMakerReadOnly": [
        _allow(
            [
                "application-autoscaling:Describe*",
                "aws-marketplace:ViewSubscriptions",
                "cloudwatch:DescribeAlarms",
                "cognito-idp:Describe*",
                "ecr:Describe*",
                "sagemaker:BatchGetMetrics",
                "sagemaker:BatchGetRecord",
                "sagemaker:Describe*",
                "sagemaker:GetRecord",
                "sagemaker:GetSearchSuggestions",
                "sagemaker:List*",
                "sagemaker:Search",
            ]
        )
    ],
    "AmazonSageMakerFeatureStoreAccess": [
        _allow(["s3:PutObject", "s3:GetBucketAcl", "s3:PutObjectAcl"], _SAGEMAKER_BUCKETS)
    ],
    "AmazonSageMakerModelRegistryFullAccess": [
        _allow(
            [
                "sagemaker:CreateModelPackage*",
                "sagemaker:DeleteModelPackage*",
                "sagemaker:DescribeModelPackage*",
                "sagemaker:ListModelPackage*",
                "sagemaker:UpdateModelPackage*",
                "sagemaker:GetModelPackageGroupPolicy",
                "sagemaker:PutModelPackageGroupPolicy",
                "sagemaker:AddTags",
                "sagemaker:DeleteTags",
                "sagemaker:ListTags",
                "sagemaker:Search",
            ]
        ),
        _allow(["s3:GetObject", "s3:GetBucketLocation", "s3:ListBucket"]),
    ],
    "AmazonS3FullAccess": [_allow(["s3:*", "s3-object-lambda:*"])],
    "AmazonS3ReadOnlyAccess": [
        _allow(["s3:Get*", "s3:List*", "s3:Describe*", "s3-object-lambda:Get*", "s3-object-lambda:List*"])
    ],
    "CloudWatchFullAccess": [_allow(["autoscaling:Describe*", "cloudwatch:*", "logs:*", "sns:*"])],
    "CloudWatchFullAccessV2": [
        _allow(["application-autoscaling:DescribeScalingPolicies", "cloudwatch:*", "logs:*", "sns:*"])
    ],
    "CloudWatchReadOnlyAccess": [
        _allow(
            [
                "cloudwatch:BatchGet*",
                "cloudwatch:Describe*",
                "cloudwatch:Get*",
                "cloudwatch:List*",
                "logs:Describe*",
                "logs:FilterLogEvents",
                "logs:Get*",
                "logs:List*",
                "logs:StartQuery",
                "logs:StopQuery",
                "logs:TestMetricFilter",
            ]
        )
    ],
    "CloudWatchLogsFullAccess": [_allow(["logs:*", "cloudwatch:GenerateQuery"])],
    "CloudWatchLogsReadOnlyAccess": [
        _allow(
            [
                "logs:Describe*",
                "logs:FilterLogEvents",
                "logs:Get*",
                "logs:List*",
                "logs:StartQuery",
                "logs:StopQuery",
                "logs:TestMetricFilter",
            ]
        )
    ],
    "CloudWatchAgentServerPolicy": [
        _allow(
            [
                "cloudwatch:PutMetricData",
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:DescribeLogGroups",
                "logs:DescribeLogStreams",
                "logs:PutLogEvents",
                "logs:PutRetentionPolicy",
            ]
        )
    ],
    "IAMFullAccess": [
        _allow(["iam:*", "organizations:DescribeAccount", "organizations:DescribeOrganization"])
    ],
    "IAMReadOnlyAccess": [_allow(["iam:Generate*", "iam:Get*", "iam:List*", "iam:Simulate*"])],
    "IAMUserChangePassword": [
        _allow("iam:ChangePassword", "arn:aws:iam::*:user/${aws:username}"),
        _allow("iam:GetAccountPasswordPolicy"),
    ],
    "AmazonEC2ContainerRegistryFullAccess": [_allow("ecr:*")],
    "AmazonEC2ContainerRegistryReadOnly": [
        _allow(["ecr:BatchCheck*", "ecr:BatchGet*", "ecr:Describe*", "ecr:Get*", "ecr:List*"])
    ],
    "service-role/AWSLambdaBasicExecutionRole": [
        _allow(["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"])
    ],
}


@cache
def managed_policies() -> Mapping[str, str]:
    """Return the documents as JSON text, by path and name below ``policy/``."""
    return {
        name: json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=4)
        for name, statements in _STATEMENTS.items()
    }


def managed_policy_document(arn: str) -> str | None:
    """Return the document of the AWS managed policy *arn*, or None if there is none of that name."""
    head, found, name = arn.partition(":iam::aws:policy/")
    document = managed_policies().get(name)
    if not found or document is None or not head.startswith("arn:aws"):
        return None
    return document if head == "arn:aws" else document.replace('"arn:aws:', f'"{head}:')
