"""A model: an image, what training made, and how to serve it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sagesmith.sdk._catalog import algorithm_of, framework_of, image_uri, is_image
from sagesmith.sdk._codecs import codec_of
from sagesmith.sdk._errors import NotFound, SdkError
from sagesmith.sdk._predictor import Predictor
from sagesmith.sdk._progress import Progress
from sagesmith.sdk._schema import TAG, Schema
from sagesmith.sdk._session import Session, default_session
from sagesmith.sdk._training_job import TrainingJob

if TYPE_CHECKING:
    from sagesmith.sdk._transformer import Transformer

__all__ = ["Model", "tag_list"]


def tag_list(tags: Mapping[str, str], schema: Schema | None = None) -> list[dict[str, str]]:
    """Return tags as AWS takes them, with the one that tells where *schema* lies."""
    found = dict(tags)
    if schema is not None and schema.uri:
        found[TAG] = schema.uri
    return [{"Key": key, "Value": str(value)} for key, value in found.items()]


class Model:
    """What `CreateModel` takes. It is created at the first `deploy`, `transformer` or `create`.

    Args:
        image: the image's URI, or the name of a built-in algorithm.
        model_data: S3 URI of the model's archive; None if the image has the model.
        name: the model's name; else one is made.
        session: where; else the session that the environment tells.
        role: execution role; else the session's.
        environment: environment variables of the container.
        tags: of the model and its endpoints.
        schema: the columns it was trained with.
        request: members of `CreateModel` merged over what is sent.
    """

    def __init__(
        self,
        image: str,
        model_data: str | None = None,
        *,
        name: str | None = None,
        session: Session | None = None,
        role: str | None = None,
        environment: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        schema: Schema | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        self.session = session or default_session()
        self.image = image if is_image(image) else image_uri(image, self.session.region)
        self.model_data = model_data
        self.name = name
        self.role = role
        self.environment = dict(environment or {})
        self.tags = dict(tags or {})
        self.schema = schema or Schema()
        self.request = dict(request or {})
        self._created = False

    @classmethod
    def from_job(cls, job: str | TrainingJob, *, session: Session | None = None) -> Model:
        """Return the model that a training job of a built-in algorithm made.

        Raises:
            SdkError: it has made none, or ran a script: such models need their script, see the frameworks' classes.
        """
        done = job if isinstance(job, TrainingJob) else TrainingJob(job, session=session)
        found = done.describe()
        image = found["AlgorithmSpecification"].get("TrainingImage", "")
        parameters = found.get("HyperParameters", {})
        schema = Schema.of(done.session, found["TrainingJobArn"])
        if "sagemaker_submit_directory" not in parameters:
            return cls(image, done.model_data, session=done.session, role=found["RoleArn"], schema=schema)
        from sagesmith.sdk._frameworks import model_of_job

        return model_of_job(done, found, schema)

    @classmethod
    def existing(cls, name: str, *, session: Session | None = None) -> Model:
        """Return the model that is called *name*.

        Raises:
            NotFound: there is none.
        """
        place = session or default_session()
        found = place.call("sagemaker", "describe_model", ModelName=name)
        container = found.get("PrimaryContainer") or (found.get("Containers") or [{}])[0]
        model = cls(
            container.get("Image", "unknown:1"),
            container.get("ModelDataUrl"),
            name=name,
            session=place,
            role=found.get("ExecutionRoleArn"),
            environment=container.get("Environment"),
            schema=Schema.of(place, found["ModelArn"]),
        )
        model._created = True
        return model

    def prepare(self) -> None:
        """Do what must be done before the model is created; subclasses put their script into the archive."""

    def create(self) -> str:
        """Create the model unless it was, and return its name."""
        if self._created and self.name:
            return self.name
        self.prepare()
        name = self.name or self.session.unique_name(self._base())
        container: dict[str, Any] = {"Image": self.image}
        if self.model_data:
            container["ModelDataUrl"] = self.model_data
        if self.environment:
            container["Environment"] = {key: str(value) for key, value in self.environment.items()}
        request = {
            "ModelName": name,
            "ExecutionRoleArn": self.role if self.role and ":" in self.role else self.session.role,
            "PrimaryContainer": container,
            **self.request,
        }
        tags = tag_list(self.tags, self.schema)
        if tags:
            request["Tags"] = tags
        self.session.call("sagemaker", "create_model", **request)
        self.name, self._created = name, True
        self.session.made(self.delete)
        return name

    def _base(self) -> str:
        algorithm = algorithm_of(self.image)
        return algorithm.name if algorithm else self.image.rpartition("/")[2].partition(":")[0]

    def deploy(
        self,
        *,
        instance_type: str = "ml.m5.large",
        instance_count: int = 1,
        name: str | None = None,
        wait: bool = True,
        progress: Progress | bool = "auto",
        variant: Mapping[str, Any] | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> Predictor:
        """Create an endpoint and return it when it is in service.

        Args:
            instance_type: of its instances.
            instance_count: how many.
            name: the endpoint's name; else one is made.
            wait: False returns at once.
            progress: how to show what goes on.
            variant: members of `ProductionVariant` merged over what is sent, such as ``ServerlessConfig``.
            request: members of `CreateEndpointConfig` merged over what is sent, such as ``DataCaptureConfig``.

        Raises:
            NameInUse: there is an endpoint of that name.
            EndpointFailed: it did not come into service.
        """
        if name is not None:
            self._must_be_free(name)
        endpoint = name or self.session.unique_name(self._base())
        model = self.create()
        one: dict[str, Any] = {"VariantName": "AllTraffic", "ModelName": model, **(variant or {})}
        if "ServerlessConfig" not in one:
            one = {"InitialInstanceCount": instance_count, "InstanceType": instance_type, **one}
        tags = tag_list(self.tags, self.schema)
        more = {"Tags": tags} if tags else {}
        self.session.call(
            "sagemaker",
            "create_endpoint_config",
            EndpointConfigName=endpoint,
            ProductionVariants=[one],
            **more,
            **(request or {}),
        )
        predictor = Predictor(
            endpoint,
            session=self.session,
            codec=codec_of(algorithm_of(self.image), framework_of(self.image)),
            schema=self.schema,
        )
        try:
            self.session.call(
                "sagemaker", "create_endpoint", EndpointName=endpoint, EndpointConfigName=endpoint, **more
            )
        except SdkError:
            self.session.call("sagemaker", "delete_endpoint_config", EndpointConfigName=endpoint)
            raise
        self.session.made(predictor.delete)
        return predictor.wait(progress=progress) if wait else predictor

    def _must_be_free(self, endpoint: str) -> None:
        from sagesmith.sdk._errors import NameInUse

        try:
            status = Predictor(endpoint, session=self.session).status
        except NotFound:
            return
        raise NameInUse(
            f"There is an endpoint {endpoint!r} already ({status}): take another name, or delete it first."
        )

    def transformer(self, **settings: Any) -> Transformer:
        """Return a `Transformer` that predicts whole files with this model; *settings* are its arguments."""
        from sagesmith.sdk._transformer import Transformer

        return Transformer(self, **settings)

    def delete(self) -> None:
        """Delete the model; its archive stays."""
        if self.name is not None:
            self.session.call("sagemaker", "delete_model", ModelName=self.name)
            self._created = False

    def __repr__(self) -> str:
        return f"Model({self.image!r}, {self.model_data!r})"
