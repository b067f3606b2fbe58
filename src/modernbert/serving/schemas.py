"""The bodies of requests and responses, as in text-embeddings-inference and OpenAI.

Unknown fields are refused, so that nothing a client asks for is ignored. `model` names one of
several models that are served; a path that begins with the name does so too.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Direction = Literal["Left", "Right", "left", "right"]

Inputs = Annotated[
    str | list[str | TokenId | list[TokenId]],
    Meta(
        description="A text, or a list of texts. A list of token ids is a text too.",
        examples=["What is deep learning?"],
    ),
]
Texts = Annotated[
    str | list[str], Meta(description="A text, or a list of texts.", examples=["Deep learning"])
]
Pairs = Annotated[
    str | list[str | list[str]],
    Meta(
        description="A text; or a list of lists, each of one text or of a pair. As in "
        "text-embeddings-inference, a list of two texts alone is one pair, and not a batch.",
        examples=["I like you."],
    ),
]
Words = Annotated[
    str | list[str | list[str]],
    Meta(
        description="A text, or a list of texts; a list of words is a text too.",
        examples=["Ada Lovelace was born in London."],
    ),
]


class Request(Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of every request."""

    model: str | None = None


class Truncating(Request, kw_only=True):
    """Requests that may say what happens to texts that are longer than the model can read."""

    truncate: bool | None = None
    truncation_direction: Direction = "Right"


class Chunking(Struct, kw_only=True, forbid_unknown_fields=True):
    """How texts are divided into pieces, each of which is given a vector (late chunking)."""

    by: Literal["tokens", "sentences"] = "tokens"
    num_tokens: Annotated[int, Meta(ge=1)] = 256
    borders: Annotated[
        list[list[tuple[int, int]]] | None,
        Meta(description="The start and end of each piece of each text, in characters, instead."),
    ] = None


class Chunk(Struct):
    """A piece of a text: its place in the text, in characters, and its vector."""

    start: int
    end: int
    embedding: list[float]


class EmbedRequest(Truncating, kw_only=True):
    inputs: Inputs
    normalize: bool = True
    prompt_name: str | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    chunks: Chunking | None = None


class EmbedAllRequest(Truncating, kw_only=True):
    inputs: Inputs
    prompt_name: str | None = None


class EmbedSparseRequest(Truncating, kw_only=True):
    inputs: Inputs
    prompt_name: str | None = None


class SparseValue(Struct):
    index: int
    value: float


class PredictRequest(Truncating, kw_only=True):
    inputs: Pairs
    raw_scores: bool = False


class Prediction(Struct, omit_defaults=True):
    """A label; `chosen` only where a text may have any number of labels."""

    score: float
    label: str
    chosen: bool | None = None


class ClassifyParameters(Struct, kw_only=True, forbid_unknown_fields=True):
    top_k: Annotated[int, Meta(ge=1)] | None = None
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None


class PredictOrClassifyRequest(PredictRequest, kw_only=True):
    """Requests to the server's root; those of the hub's inference clients have `parameters`."""

    parameters: ClassifyParameters | None = None


class RerankRequest(Truncating, kw_only=True):
    query: Annotated[str, Meta(examples=["What is deep learning?"])]
    texts: Annotated[list[str], Meta(examples=[["Deep learning is ...", "Cheese is made of ..."]])]
    raw_scores: bool = False
    return_text: bool = False


class Rank(Struct, omit_defaults=True):
    index: int
    score: float
    text: str | None = None


class Document(Struct, forbid_unknown_fields=True):
    text: str


class RankDocumentsRequest(Request, kw_only=True):
    """Requests as for Jina's /v1/rerank and the first version of Cohere's."""

    query: Annotated[str, Meta(examples=["What is deep learning?"])]
    documents: Annotated[
        list[str | Document], Meta(examples=[["Deep learning is ...", "Cheese is made of ..."]])
    ]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool = True


class RankTextsRequest(Request, kw_only=True):
    """Requests as for Cohere's /v2/rerank."""

    query: Annotated[str, Meta(examples=["What is deep learning?"])]
    documents: Annotated[
        list[str], Meta(examples=[["Deep learning is ...", "Cheese is made of ..."]])
    ]
    top_n: Annotated[int, Meta(ge=1)] | None = None


class RankedDocument(Struct, omit_defaults=True):
    index: int
    relevance_score: float
    document: Document | None = None


class RankedUsage(Struct):
    total_tokens: int


class RankedDocuments(Struct):
    id: str
    model: str
    results: list[RankedDocument]
    usage: RankedUsage


class SimilarityInput(Struct, forbid_unknown_fields=True):
    source_sentence: Annotated[str, Meta(examples=["What is deep learning?"])]
    sentences: Annotated[list[str], Meta(examples=[["What is machine learning?", "Cheese"]])]


class SimilarityParameters(Struct, kw_only=True, forbid_unknown_fields=True):
    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    prompt_name: str | None = None


class SimilarityRequest(Request, kw_only=True):
    inputs: SimilarityInput
    parameters: SimilarityParameters | None = None


class EmbedOrCompareRequest(EmbedRequest, kw_only=True):
    """Requests to the server's root: texts to embed, or sentences to compare."""

    inputs: str | list[str | TokenId | list[TokenId]] | SimilarityInput  # type: ignore[assignment]
    parameters: SimilarityParameters | None = None


class TokenizeRequest(Request, kw_only=True):
    inputs: Texts
    add_special_tokens: bool = True
    prompt_name: str | None = None


class SimpleToken(Struct):
    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class DecodeRequest(Request, kw_only=True):
    ids: Annotated[list[TokenId | list[TokenId]], Meta(examples=[[[40, 41, 42]]])]
    skip_special_tokens: bool = True


class FillMaskParameters(Struct, kw_only=True, forbid_unknown_fields=True):
    top_k: Annotated[int, Meta(ge=1, le=100)] = 5
    targets: None = None


class FillMaskRequest(Truncating, kw_only=True):
    inputs: Annotated[
        str | list[str],
        Meta(
            description="A text with [MASK] in it, or a list of such.",
            examples=["The capital of France is [MASK]."],
        ),
    ]
    parameters: FillMaskParameters = field(default_factory=FillMaskParameters)


class FilledMask(Struct):
    score: float
    token: int
    token_str: str
    sequence: str


class TagParameters(Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of the hub's inference clients; entities are always grouped."""

    aggregation_strategy: Literal["simple"] | None = None


class TagRequest(Truncating, kw_only=True):
    inputs: Words
    parameters: TagParameters | None = None


class TaggedEntity(Struct):
    entity_group: str
    score: float
    word: str
    start: int
    end: int


class Question(Struct, forbid_unknown_fields=True):
    question: str
    context: str


class AnswerRequest(Request, kw_only=True):
    inputs: Annotated[
        Question | list[Question],
        Meta(
            description="A question and the text that may answer it, or a list of such.",
            examples=[
                {
                    "question": "Where was Ada Lovelace born?",
                    "context": "Ada Lovelace was born in London.",
                }
            ],
        ),
    ]
    must_answer: bool = False


class Answer(Struct):
    answer: str
    score: float
    start: int
    end: int


class OpenAIRequest(Request, kw_only=True):
    input: Inputs
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None


class OpenAIEmbedding(Struct):
    object: Literal["embedding"]
    embedding: list[float] | str
    index: int


class OpenAIUsage(Struct):
    prompt_tokens: int
    total_tokens: int


class OpenAIResponse(Struct):
    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage


class OpenAIModel(Struct):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "modernbert"


class OpenAIModels(Struct):
    data: list[OpenAIModel]
    object: Literal["list"] = "list"


class Info(Struct, kw_only=True):
    """The models that are served, and the limits of the server."""

    model_id: str
    model_sha: str | None = None
    model_dtype: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None = None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None = None
    docker_label: str | None = None
    models: list[str]
    routes: list[str]


class ErrorResponse(Struct):
    error: str
    error_type: str


class OpenAIErrorResponse(Struct, rename={"error_type": "type"}):
    message: str
    code: int
    error_type: str
