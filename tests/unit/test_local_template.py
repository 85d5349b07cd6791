"""The template reader: what a SAM template means locally, and what it answers to one it can't serve."""

from pathlib import Path
from typing import Any

import pytest

from local.template.intrinsics import Intrinsics, TemplateError, parse
from local.template.model import Cors, KafkaMapping, Route, Schedule, Template
from local.template.reader import load

FIXTURE = Path(__file__).parents[1] / "integration/fixtures/lambda/template.yaml"

HEAD = """
Parameters:
  Topic: {Type: String, Default: parts}
  Stage: {Type: String, Default: dev, AllowedValues: [dev, prod]}
  Names: {Type: CommaDelimitedList, Default: "a, b"}
  ClusterArn: {Type: String}
  Wait: {Type: Number, Default: 7, MinValue: 1, MaxValue: 9}
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
  IsDev: !Not [!Condition IsProd]
Mappings:
  Sizes:
    dev: {memory: 256}
    prod: {memory: 1024}
Globals:
  Function:
    Runtime: python3.13
    Handler: app.handler
    MemorySize: !FindInMap [Sizes, !Ref Stage, memory]
    Layers: [!Ref Common]
    Environment:
      Variables: {SHARED: yes-it-is, OVER: global}
Resources:
  Bucket: {Type: AWS::S3::Bucket}
  NamedBucket: {Type: AWS::S3::Bucket, Properties: {BucketName: !Sub "data-${AWS::Region}"}}
  Common: {Type: AWS::Serverless::LayerVersion, Properties: {ContentUri: layer}}
"""

WORKER = """
  WorkerFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: worker
"""


def read(folder: Path, resources: str = "", parameters: dict[str, str] | None = None) -> Template:
    for name in ("worker", "layer"):
        (folder / name).mkdir(exist_ok=True)
    path = folder / "template.yaml"
    path.write_text(HEAD + resources)
    return load(path, parameters or {})


def read_event(folder: Path, kind: str, properties: str) -> Template:
    event = f"      Events: {{One: {{Type: {kind}, Properties: {{{properties}}}}}}}\n"
    return read(folder, WORKER + event)


def test_function_takes_globals_and_its_own_values(tmp_path: Path) -> None:
    template = read(
        tmp_path,
        WORKER
        + """
      Timeout: !Ref Wait
      ReservedConcurrentExecutions: 5
      Environment:
        Variables:
          OVER: own
          BUCKET: !Ref Bucket
          NAMED: !Ref NamedBucket
          FLAG: true
          NUMBER: 12
          PROD_ONLY: !If [IsProd, "1", !Ref AWS::NoValue]
""",
    )
    function = template.functions["WorkerFunction"]
    assert function.folder == "worker"
    assert function.code == tmp_path / "worker"
    assert function.layers == (tmp_path / "layer",)
    assert (function.handler, function.timeout, function.memory) == ("app.handler", 7, 256)
    assert function.concurrency == 5
    assert function.environment == {
        "SHARED": "yes-it-is",
        "OVER": "own",
        "BUCKET": "bucket",
        "NAMED": "data-us-east-1",
        "FLAG": "true",
        "NUMBER": "12",
    }


def test_parameters_override_defaults_and_drive_conditions(tmp_path: Path) -> None:
    resources = WORKER.replace("Type:", "Condition: IsProd\n    Type:")
    assert read(tmp_path, resources).functions == {}
    assert read(tmp_path, resources, {"Stage": "prod"}).functions["WorkerFunction"].memory == 1024


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("!Sub '${Topic}-${!kept}-${Bucket}'", "parts-${kept}-bucket"),
        ("!Sub ['${A}/${Topic}', {A: !Ref Stage}]", "dev/parts"),
        ("!Sub '${NamedBucket.Arn}/*'", "arn:aws:s3:::data-us-east-1/*"),
        ("!GetAtt WorkerFunction.Arn", "arn:aws:lambda:us-east-1:123456789012:function:WorkerFunction"),
        ("!GetAtt Common.Some.Thing", "Common.Some.Thing"),
        ("!Join ['-', [a, !Ref Topic, 3]]", "a-parts-3"),
        ("!Join ['+', !Ref Names]", "a+b"),
        ("!Select [1, !Split ['/', 'x/y/z']]", "y"),
        ("!If [IsDev, [1, !Ref AWS::NoValue, 2], []]", [1, 2]),
        ("!And [!Condition IsDev, !Not [!Condition IsProd]]", True),
        ("!Or [!Condition IsProd, !Equals [!Ref Wait, 8]]", False),
        ("{'Fn::If': [IsProd, a, {Ref: Stage}]}", "dev"),
        ("!Ref Common", "Common"),
        ("!Ref AWS::AccountId", "123456789012"),
    ],
)
def test_intrinsics(value: str, expected: Any) -> None:
    document = parse(HEAD + WORKER + f"Value: {value}\n")
    assert Intrinsics(document, {}).resolve(document["Value"], "Value") == expected


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("!Ref Nothing", "Value: the template has no parameter or resource 'Nothing'."),
        ("!Ref ClusterArn", "Value: parameter 'ClusterArn' has no default; give it a value."),
        ("!If [Nope, 1, 2]", "Value (Fn::If): the template has no condition 'Nope'."),
        ("!Select [5, [a]]", "Value (Fn::Select): no item '5' in a list of 1."),
        (
            "!FindInMap [Sizes, test, memory]",
            "Value (Fn::FindInMap): no entry Sizes.test.memory in Mappings.",
        ),
        ("!ImportValue other", "Value (Fn::ImportValue): this function or this form of it"),
        ("!Join ['-', plain]", "Value (Fn::Join): expected a list, found 'plain'."),
    ],
)
def test_intrinsics_that_fail_name_the_place(value: str, sentence: str) -> None:
    document = parse(HEAD + f"Value: {value}\n")
    with pytest.raises(TemplateError) as error:
        Intrinsics(document, {}).resolve(document["Value"], "Value")
    assert str(error.value).startswith(sentence)


def test_condition_that_depends_on_itself_is_refused() -> None:
    document = parse("Conditions: {A: !Condition B, B: !Not [!Condition A]}")
    with pytest.raises(TemplateError, match="condition 'A' depends on itself"):
        Intrinsics(document, {}).condition("A", "here")


def test_msk_event_with_every_property(tmp_path: Path) -> None:
    template = read_event(
        tmp_path,
        "MSK",
        "Stream: !Ref ClusterArn, Topics: [!Ref Topic], BatchSize: 10, MaximumBatchingWindowInSeconds: 0, "
        "FunctionResponseTypes: [ReportBatchItemFailures], MaximumRetryAttempts: 4, "
        "DestinationConfig: {OnFailure: {Type: Kafka, Destination: 'kafka://dead-letters'}}, "
        "ConsumerGroupId: workers, StartingPosition: LATEST, BisectBatchOnFunctionError: true, "
        """FilterCriteria: {Filters: [{Pattern: '{"value": {"a": [1]}}'}]}""",
    )
    assert template.mappings == (
        KafkaMapping(
            name="WorkerFunctionOne",
            function="WorkerFunction",
            topic="parts",
            batch_size=10,
            window_seconds=0.0,
            report_item_failures=True,
            max_retries=4,
            on_failure_topic="dead-letters",
            consumer_group="workers",
            starting_position="LATEST",
            filters=('{"value": {"a": [1]}}',),
            bisect=True,
        ),
    )


def test_msk_event_defaults_are_those_of_lambda(tmp_path: Path) -> None:
    (mapping,) = read_event(tmp_path, "MSK", "Topics: [parts]").mappings
    assert (mapping.batch_size, mapping.window_seconds, mapping.max_retries) == (100, 0.5, -1)
    assert (mapping.on_failure_topic, mapping.report_item_failures, mapping.bisect) == (None, False, False)
    assert mapping.consumer_group == "WorkerFunctionOne"


def test_infinite_retries_with_a_destination_are_ten(tmp_path: Path) -> None:
    destination = "DestinationConfig: {OnFailure: {Destination: 'kafka://dead'}}"
    (mapping,) = read_event(tmp_path, "MSK", f"Topics: [parts], {destination}").mappings
    assert mapping.max_retries == 10


def test_disabled_events_are_left_out(tmp_path: Path) -> None:
    assert read_event(tmp_path, "MSK", "Topics: [parts], Enabled: false").mappings == ()
    assert read_event(tmp_path, "Schedule", "Schedule: rate(1 minute), Enabled: false").schedules == ()
    event = "ScheduleExpression: rate(1 minute), State: DISABLED"
    assert read_event(tmp_path, "ScheduleV2", event).schedules == ()


def test_raw_event_source_mapping(tmp_path: Path) -> None:
    (mapping,) = read(
        tmp_path,
        WORKER
        + """
  WorkerMapping:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      FunctionName: !GetAtt WorkerFunction.Arn
      Topics: [parts]
      BatchSize: 3
      AmazonManagedKafkaEventSourceConfig: {ConsumerGroupId: raw-group}
""",
    ).mappings
    assert (mapping.name, mapping.function, mapping.batch_size) == ("WorkerMapping", "WorkerFunction", 3)
    assert mapping.consumer_group == "raw-group"


@pytest.mark.parametrize(
    ("kind", "properties", "seconds", "payload"),
    [
        ("Schedule", "Schedule: rate(1 minute)", 60, None),
        ("ScheduleV2", "ScheduleExpression: rate(2 hours)", 7200, None),
        ("Schedule", """Schedule: rate(1 day), Input: '{"a": 1}'""", 86_400, {"a": 1}),
    ],
)
def test_schedules(tmp_path: Path, kind: str, properties: str, seconds: float, payload: Any) -> None:
    template = read_event(tmp_path, kind, properties)
    assert template.schedules == (Schedule("WorkerFunctionOne", "WorkerFunction", seconds, payload),)


def test_routes_and_cors_of_the_fixture() -> None:
    template = load(FIXTURE, {})
    assert Route("GET", "/things/{id}", "EchoFunction") in template.routes
    assert Route("ANY", "/files/{path+}", "EchoFunction") in template.routes
    assert template.cors == Cors(
        origins=("https://app.example.com",), methods=("GET", "POST"), headers=("content-type",), max_age=600
    )


@pytest.mark.parametrize(
    ("kind", "properties", "sentence"),
    [
        ("MSK", "Topics: [a, b]", "WorkerFunctionOne: Topics must be a list of one topic."),
        ("MSK", "BatchSize: 3", "WorkerFunctionOne: Topics is missing."),
        ("MSK", "Topics: [a], BatchSize: many", "BatchSize is 'many', not a whole number."),
        ("MSK", "Topics: [a], BatchSize: 10001", "BatchSize is 10001; it must be from 1 to 10000."),
        ("MSK", "Topics: [a], Enabled: perhaps", "Enabled is 'perhaps', not true or false."),
        (
            "MSK",
            "Topics: [a], DestinationConfig: {OnFailure: {Destination: 'arn:aws:sqs:x'}}",
            "only kafka://topic is",
        ),
        ("Schedule", "Schedule: 'cron(0 1 * * ? *)'", "'cron(0 1 * * ? *)' is not served locally, only rate"),
        ("Schedule", "Schedule: rate(1 minute), Input: oops", "Input is not a JSON text."),
        ("SQS", "Queue: x", "WorkerFunctionOne: events of type 'SQS' are not served locally."),
    ],
)
def test_events_that_cannot_be_served(tmp_path: Path, kind: str, properties: str, sentence: str) -> None:
    with pytest.raises(TemplateError) as error:
        read_event(tmp_path, kind, properties)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("CodeUri: worker", "CodeUri: nowhere"), "CodeUri 'nowhere' is not a folder next to the template."),
        (("CodeUri: worker", "CodeUri: worker\n      Timeout: 901"), "it must be from 1 to 900"),
        (("CodeUri: worker", "CodeUri: worker\n      Runtime: nodejs22.x"), "only python3 is"),
    ],
)
def test_functions_that_cannot_be_served(tmp_path: Path, change: tuple[str, str], sentence: str) -> None:
    with pytest.raises(TemplateError, match="WorkerFunction") as error:
        read(tmp_path, WORKER.replace(*change))
    assert sentence in str(error.value)


def test_parameters_are_checked(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="has no parameter 'Stagee'; it has: ClusterArn, Names"):
        read(tmp_path, WORKER, {"Stagee": "prod"})
    with pytest.raises(TemplateError, match="'Stage' is 'test'; allowed are dev, prod"):
        read(tmp_path, WORKER, {"Stage": "test"})
    timed = WORKER + "      Timeout: !Ref Wait\n"
    with pytest.raises(TemplateError, match="'Wait' is 10; it must be from 1 to 9"):
        read(tmp_path, timed, {"Wait": "10"})
    with pytest.raises(TemplateError, match="'Wait' is 'long', not a number"):
        read(tmp_path, timed, {"Wait": "long"})


def test_files_that_are_no_template(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="Cannot read the template"):
        load(tmp_path / "none.yaml", {})
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(TemplateError, match="not a YAML mapping"):
        load(tmp_path / "list.yaml", {})
    (tmp_path / "bad.yaml").write_text("a: [\n")
    with pytest.raises(TemplateError, match="not valid YAML"):
        load(tmp_path / "bad.yaml", {})
