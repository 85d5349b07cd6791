"""template.yaml as AWS will see it: run through the SAM transform, and held against the code it deploys."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.services.kafka import TOPICS
from local.template.intrinsics import Intrinsics, parse
from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.policy import Policy
from sitebackup.settings import Settings, SettingsError

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv-tools/bin/python"
IAM = {"JwtIssuer": "", "JwtAudience": ""}
ENVIRONMENT = {
    "BACKUP_BUCKET": "backups",
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9098",
    "MONGO_URI": "mongodb://mongo",
}
"""Of a function, without what names its providers."""
JWT = {"JwtIssuer": "https://login.example.com/", "JwtAudience": "site-backup,console"}

# The SAM CLI's own translator, in its own virtual environment. Only where code lies differs from a real deployment.
TRANSFORM = """
import json, sys
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

template, given = yaml_parse(open(sys.argv[1]).read()), json.loads(sys.argv[2])
for resource in template["Resources"].values():
    for place in {"CodeUri", "ContentUri"} & set(resource.get("Properties", {})):
        resource["Properties"][place] = "s3://bucket/key"
defaults = {name: each["Default"] for name, each in template["Parameters"].items() if "Default" in each}
json.dump(Translator({}, Parser()).translate(template, parameter_values={**defaults, **given}), sys.stdout)
"""


def transform(parameters: dict[str, str], path: Path = ROOT / "template.yaml") -> dict[str, Any]:
    assert TOOLS.exists(), "The SAM CLI is missing: run `make setup`."
    run = subprocess.run(
        [TOOLS, "-c", TRANSFORM, path, json.dumps(parameters)],
        env={"AWS_DEFAULT_REGION": "us-east-1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    transformed: dict[str, Any] = json.loads(run.stdout)
    return transformed


def choose(value: Any, conditions: dict[str, bool]) -> Any:
    """The value with every Fn::If decided."""
    if isinstance(value, list):
        return [choose(item, conditions) for item in value]
    if isinstance(value, dict):
        if "Fn::If" in value:
            name, then, otherwise = value["Fn::If"]
            return choose(then if conditions[name] else otherwise, conditions)
        return {key: choose(item, conditions) for key, item in value.items()}
    return value


@pytest.fixture(scope="module")
def transformed() -> dict[str, Any]:
    return transform(IAM)


@pytest.fixture(scope="module")
def resources(transformed: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = transformed["Resources"]
    return found


@pytest.fixture(scope="module")
def source() -> dict[str, Any]:
    return parse((ROOT / "template.yaml").read_text())


def events(source: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    functions = [each["Properties"] for each in source["Resources"].values() if "Function" in each["Type"]]
    all_events = [event for each in functions for event in each.get("Events", {}).values()]
    return [event["Properties"] for event in all_events if event["Type"] == kind]


def statements(resources: dict[str, Any], function: str) -> list[dict[str, Any]]:
    role = resources[f"{function}Role"]["Properties"]
    documents = [policy["PolicyDocument"] for policy in role.get("Policies", [])]
    everything = {"HasKmsKey": True, "HasProviderSecrets": True}
    return [choose(each, everything) for document in documents for each in document["Statement"]]


def operations(resources: dict[str, Any], api: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What an API's definition says of each route, by path and method."""
    paths = resources[api]["Properties"]["Body"]["paths"]
    return {(path, method): each for path, item in paths.items() for method, each in item.items()}


def functions_of_routes(source: dict[str, Any]) -> dict[tuple[str, str], str]:
    """By the functions' own events."""
    return {
        (event["Properties"]["Path"], event["Properties"]["Method"].lower()): name
        for name, resource in source["Resources"].items()
        for event in (resource.get("Properties", {}).get("Events") or {}).values()
        if event["Type"] == "HttpApi"
    }


def test_every_route_of_services_asks_for_a_signature(
    source: dict[str, Any], resources: dict[str, Any]
) -> None:
    found = operations(resources, "Api")
    assert found.keys() == functions_of_routes(source).keys()
    scheme = resources["Api"]["Properties"]["Body"]["components"]["securitySchemes"]["AWS_IAM"]
    assert scheme["x-amazon-apigateway-authtype"] == "awsSigv4"
    for operation in found.values():
        assert operation["security"] == [{"AWS_IAM": []}]
        assert operation["x-amazon-apigateway-integration"]["payloadFormatVersion"] == "2.0"


def test_every_route_of_users_asks_for_a_token_and_leads_to_the_same_function(source: dict[str, Any]) -> None:
    resources = transform(JWT)["Resources"]
    found, functions = operations(resources, "UserApi"), functions_of_routes(source)
    assert found.keys() == functions.keys(), "the definition for users and the functions' events differ"
    components = resources["UserApi"]["Properties"]["Body"]["components"]
    authorizer = components["securitySchemes"]["User"]["x-amazon-apigateway-authorizer"]
    assert (authorizer["type"], authorizer["identitySource"]) == ("jwt", "$request.header.Authorization")
    assert authorizer["jwtConfiguration"] == {
        "issuer": {"Ref": "JwtIssuer"},
        "audience": {"Fn::Split": [",", {"Ref": "JwtAudience"}]},
    }
    for route, operation in found.items():
        assert operation["security"] == [{"User": []}], route
        where = operation["x-amazon-apigateway-integration"]["$ref"].removeprefix("#/components/")
        kind, _, name = where.partition("/")
        integration = components[kind][name]
        assert (integration["type"], integration["payloadFormatVersion"]) == ("aws_proxy", "2.0")
        assert f"/functions/${{{functions[route]}.Arn}}/" in integration["uri"]["Fn::Sub"], route


def test_the_api_of_users_may_invoke_the_functions_of_its_routes_and_no_others(
    source: dict[str, Any], resources: dict[str, Any]
) -> None:
    allowed = {
        each["Properties"]["FunctionName"]["Ref"]
        for each in resources.values()
        if each["Type"] == "AWS::Lambda::Permission" and "${UserApi}" in str(each["Properties"]["SourceArn"])
    }
    assert allowed == set(functions_of_routes(source).values())


def test_without_an_issuer_there_is_no_api_of_users(resources: dict[str, Any]) -> None:
    """Whatever is its own, or names it, depends on the condition."""
    text = {name: json.dumps(each) for name, each in resources.items()}
    concerned = [name for name in text if name.startswith("UserApi") or "UserApi" in text[name]]
    assert len(concerned) > 10
    assert [name for name in concerned if resources[name].get("Condition") != "UsesJwt"] == []


def test_both_apis_log_every_call_with_who_made_it() -> None:
    resources = transform(JWT)["Resources"]
    stages = [each for each in resources.values() if each["Type"] == "AWS::ApiGatewayV2::Stage"]
    assert len(stages) == 2
    for stage in stages:
        logs = stage["Properties"]["AccessLogSettings"]
        assert logs["DestinationArn"] == {"Fn::GetAtt": ["ApiLogs", "Arn"]}
        assert {"status", "caller", "subject", "sourceIp"} <= json.loads(logs["Format"]).keys()


def test_preflight_requests_need_no_authorizer(resources: dict[str, Any]) -> None:
    body = resources["Api"]["Properties"]["Body"]
    assert not [path for path, item in body["paths"].items() if "options" in item]
    assert body["x-amazon-apigateway-cors"]["allowOrigins"] == ["*"]
    assert {"authorization", "idempotency-key"} <= set(body["x-amazon-apigateway-cors"]["allowHeaders"])


def test_pages_may_send_every_header_that_a_signature_needs(resources: dict[str, Any]) -> None:
    request = AWSRequest("POST", "https://api.example.com/backup", data=b"{}")
    # Its S3 kind sends the digest of the body, too, as the SDK for browsers does for every service.
    S3SigV4Auth(Credentials("key", "secret", "token"), "execute-api", "us-east-1").add_auth(request)
    sent = {name.lower() for name in request.headers.keys()}  # noqa: SIM118 - a message, no mapping
    assert {"authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"} <= sent
    cors = resources["Api"]["Properties"]["Body"]["x-amazon-apigateway-cors"]
    assert sent <= set(cors["allowHeaders"])


def test_no_statement_allows_everything(resources: dict[str, Any]) -> None:
    functions = [name for name, each in resources.items() if each["Type"] == "AWS::Lambda::Function"]
    assert functions
    for function in functions:
        for statement in statements(resources, function):
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            assert not [action for action in actions if "*" in action], (function, statement)
            assert statement["Resource"] != "*"
            # Objects are removed by version only, so that nobody's good backup is hidden by a delete marker.
            assert "s3:DeleteObject" not in actions


def test_nobody_may_bypass_a_lock_and_none_is_longer_than_the_parameter(resources: dict[str, Any]) -> None:
    assert resources["BackupBucket"]["Properties"]["ObjectLockEnabled"] is True
    assert "BypassGovernanceRetention" not in (ROOT / "template.yaml").read_text()
    policy = resources["BackupBucketPolicy"]["Properties"]["PolicyDocument"]
    (cap,) = [one for one in policy["Statement"] if one["Action"] == "s3:PutObjectRetention"]
    assert (cap["Effect"], cap["Principal"]) == ("Deny", "*")
    assert cap["Condition"] == {
        "NumericGreaterThan": {"s3:object-lock-remaining-retention-days": {"Ref": "LockDays"}}
    }


def test_a_download_link_can_do_no_more_than_read_one_object(resources: dict[str, Any]) -> None:
    role = resources["DownloadRole"]["Properties"]
    (trusted,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trusted["Principal"] == {"AWS": {"Fn::GetAtt": ["CreateDownloadFunctionRole", "Arn"]}}
    (policy,) = role["Policies"]
    read, decrypt = choose(policy["PolicyDocument"]["Statement"], {"HasKmsKey": True})
    assert read["Action"] == ["s3:GetObject", "s3:GetObjectVersion"]
    assert read["Resource"] == {"Fn::Sub": "${BackupBucket.Arn}/*"}
    assert (decrypt["Action"], decrypt["Resource"]) == ("kms:Decrypt", {"Ref": "KmsKeyArn"})
    assert statements(resources, "CreateDownloadFunction") == [], "the function itself reads no backup"


@pytest.mark.parametrize("another_s3", [True, False])
def test_links_are_signed_by_the_role_unless_another_s3_is_used(
    resources: dict[str, Any], another_s3: bool
) -> None:
    environment = resources["CreateDownloadFunction"]["Properties"]["Environment"]["Variables"]
    arn = choose(environment["DOWNLOAD_ROLE_ARN"], {"HasS3EndpointUrl": another_s3})
    assert arn == ("" if another_s3 else {"Fn::GetAtt": ["DownloadRole", "Arn"]})


def test_only_the_clean_up_may_remove_of_the_scheduled_functions(resources: dict[str, Any]) -> None:
    allowed = {
        name: {
            action
            for statement in statements(resources, name)
            for action in (
                statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            )
        }
        for name in ("SweepJobsFunction", "CleanUpFunction", "RunScheduleFunction")
    }
    assert {action for action in allowed["CleanUpFunction"] if not action.startswith("s3:")} == set()
    assert "s3:DeleteObjectVersion" in allowed["CleanUpFunction"]
    for name in ("SweepJobsFunction", "RunScheduleFunction"):
        assert {action for action in allowed[name] if not action.startswith("kafka-cluster:")} == set()


class Noted:
    """Adapters that note which of them were asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> object:
        self.names.add(name)
        return object()


def test_the_functions_that_work_with_providers_may_read_their_settings_and_no_others(
    source: dict[str, Any],
) -> None:
    settings = Settings.from_env(ENVIRONMENT | {"PROVIDERS_SOURCE": "ssm:/providers"})
    functions = [each for each in source["Resources"].values() if each["Type"] == "AWS::Serverless::Function"]
    assert functions
    for function in functions:
        properties = function["Properties"]
        adapters: Any = Noted()
        name = properties["CodeUri"].removeprefix("functions/")
        getattr(Bootstrap(settings, adapters), name)()
        may = {"Fn::If": ["HasProvidersSource", {"Ref": "ReadProviders"}, {"Ref": "AWS::NoValue"}]}
        assert (may in properties["Policies"]) == ("providers" in adapters.names), name


@pytest.mark.parametrize("key", ["", "arn:aws:kms:us-east-1:123456789012:key/1"], ids=["", "with a key"])
@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (
            "ssm:/site-backup/prod/providers",
            {
                "arn:aws:ssm:us-east-1:123456789012:parameter/site-backup/prod/providers": [
                    "ssm:GetParameter",
                    "ssm:GetParameterHistory",
                ]
            },
        ),
        (
            "s3://settings-1/site-backup/ssm/providers.json",
            {
                "arn:aws:s3:::settings-1/site-backup/ssm/providers.json": [
                    "s3:GetObject",
                    "s3:GetObjectVersion",
                ],
                "arn:aws:s3:::settings-1": "s3:ListBucketVersions",
            },
        ),
    ],
)
def test_the_settings_of_the_providers_can_be_read_with_their_versions_and_nothing_else(
    source: dict[str, Any], place: str, expected: dict[str, Any], key: str
) -> None:
    intrinsics = Intrinsics(source, {"ProvidersSource": place, "KmsKeyArn": key})
    policy = source["Resources"]["ReadProviders"]
    assert intrinsics.condition(policy["Condition"], "ReadProviders")
    document = intrinsics.resolve(policy["Properties"]["PolicyDocument"], "ReadProviders")
    found = {each["Resource"]: each["Action"] for each in document["Statement"]}
    assert found == expected | ({key: "kms:Decrypt"} if key else {})


def test_no_policy_is_made_for_providers_that_are_listed_in_the_parameter(source: dict[str, Any]) -> None:
    assert not Intrinsics(source, {}).condition(source["Resources"]["ReadProviders"]["Condition"], "here")


@pytest.mark.parametrize(
    "place",
    ["", "ssm:/providers", "ssm:/a/b_c.D-1", "s3://backups/a=b/c.json", "ssm:name", "ssm:/a/", "s3://backups",
     "s3://B/c", "s3://backups/a*", "s3://backups/a b", "s3:/backups/a", "arn:aws:s3:::backups/a"],
)  # fmt: skip
def test_the_template_takes_the_sources_that_the_settings_take(source: dict[str, Any], place: str) -> None:
    pattern = source["Parameters"]["ProvidersSource"]["AllowedPattern"]
    listed = "" if place else '[{"name": "site", "exportUrl": "http://site"}]'
    try:
        Settings.from_env(ENVIRONMENT | {"PROVIDERS": listed, "PROVIDERS_SOURCE": place})
    except SettingsError:
        assert not re.fullmatch(pattern, place)
    else:
        assert re.fullmatch(pattern, place)


def test_every_scheduled_function_has_an_alarm_that_it_stands_still() -> None:
    monitoring = parse((ROOT / "infrastructure/monitoring.yaml").read_text())["Resources"]
    for function in ("SweepJobs", "CleanUp", "RunSchedule", "SaveSettings"):
        alarm = json.dumps(monitoring[f"{function}Stopped"])
        assert f'"{function}Function"' in alarm
        assert f"${{{function}Stopped.Arn}}" in json.dumps(monitoring["Dashboard"])


def test_every_consumer_may_read_its_topic_and_write_dead_letters(
    source: dict[str, Any], resources: dict[str, Any]
) -> None:
    for name, resource in source["Resources"].items():
        for event in (resource.get("Properties", {}).get("Events") or {}).values():
            if event["Type"] != "MSK":
                continue
            (topic,), group = event["Properties"]["Topics"], event["Properties"]["ConsumerGroupId"]
            allowed = json.dumps(statements(resources, name))
            for needed in (f"${{Topics}}/{topic}", f"${{Groups}}/{group}", "${Topics}/dead-letters"):
                assert f'"{needed}"' in allowed, (name, needed)
            mapping = event["Properties"]
            assert mapping["DestinationConfig"]["OnFailure"]["Destination"] == "kafka://dead-letters"
            assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
            assert mapping["MaximumRetryAttempts"] > 0
            assert mapping["ProvisionedPollerConfig"], "retry limits need provisioned pollers"


def test_the_functions_log_to_a_group_with_a_retention(resources: dict[str, Any]) -> None:
    for name, each in resources.items():
        if each["Type"] == "AWS::Lambda::Function":
            logging = each["Properties"]["LoggingConfig"]
            group = resources[logging["LogGroup"]["Ref"]]
            assert group["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"}, name
            # Metrics travel as log lines without a level, which count as INFO.
            assert logging["ApplicationLogLevel"] in ("TRACE", "DEBUG", "INFO")


def test_every_time_and_limit_of_the_policy_can_be_set(source: dict[str, Any]) -> None:
    variables = source["Globals"]["Function"]["Environment"]["Variables"]
    fixed = {"max_stall_seconds", "max_tries", "max_stream_stops"}  # internal to the sweep
    for field in msgspec.structs.fields(Policy):
        if field.name in fixed:
            continue
        parameter = source["Parameters"][variables[field.name.upper()]["Ref"]]
        assert parameter["Default"] == field.default, field.name


def test_every_parameter_is_described_and_grouped(source: dict[str, Any]) -> None:
    groups = source["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]
    assert sorted(grouped) == sorted(source["Parameters"])
    assert all(each.get("Description") for each in source["Parameters"].values())


def test_the_dashboard_is_json_and_names_metrics_that_the_code_emits() -> None:
    monitoring = parse((ROOT / "infrastructure/monitoring.yaml").read_text())
    body = json.loads(monitoring["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"])
    code = "".join(path.read_text() for path in (ROOT / "layers/common/sitebackup").rglob("*.py"))
    alarms = json.dumps({**monitoring["Resources"], "Dashboard": None})
    queries = json.dumps(body) + alarms
    names = {
        word.partition("(")[2].partition(")")[0]
        for word in queries.split()
        if word.startswith(("SUM(", "MAX("))
    }
    names.discard("METRICS(")
    expected = {
        "JobsFailed",
        "EventsLost",
        "BackupsShrunk",
        "SweepLag",
        "CleanUpLag",
        "SchedulesMissed",
        "JobsDone",
        "BytesStored",
    }
    assert expected <= names
    assert not [name for name in names if f'"{name}"' not in code]


def test_the_topics_of_a_deployment_are_those_of_a_local_run() -> None:
    script = (ROOT / "infrastructure/create_topics.py").read_text()
    assert not [topic for topic in TOPICS if f'"{topic}":' not in script]


def test_samconfig_names_only_parameters_of_the_template(source: dict[str, Any]) -> None:
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    assert {"dev", "prod"} <= set(config)
    required = {name for name, each in source["Parameters"].items() if "Default" not in each}
    for name in ("dev", "prod"):
        given = set(config[name]["deploy"]["parameters"]["parameter_overrides"])
        assert required <= given <= set(source["Parameters"]), name


def test_checkov_exceptions_say_why() -> None:
    text = (ROOT / ".checkov.yaml").read_text()
    skipped = yaml.safe_load(text)["skip-check"]
    lines = text.splitlines()
    for check in skipped:
        assert lines[lines.index(f"  - {check}") - 1].lstrip().startswith("#"), check
