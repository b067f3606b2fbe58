"""Every error that a user can cause, and what to do about it.

    ModernBertError                 catch this to catch them all
    ├── InputError                  a text, a token id or an argument that cannot be used
    │   └── DocumentError           a corpus file or one of its records
    ├── SettingsError               a recipe or a setting: unknown key, wrong type, bad value
    ├── ConfigError                 a model's numbers: contradictory, absurd or not supported
    ├── TokenizerError              a tokenizer file that cannot be used
    ├── ModelFolderError            a model folder: missing, incomplete or of another shape
    ├── ExportError                 a model that cannot be exported, or whose export differs
    ├── ResultError                 a model that gave results that are not finite numbers
    ├── HubError                    a folder that cannot be pushed to the hub
    ├── ShardError                  token shards: truncated, changed or not ours
    ├── RunError                    a run folder: another recipe's, or no usable checkpoint
    │   └── CheckpointError         one checkpoint: torn, changed or of another run
    └── TrainingError               training cannot go on
        ├── NonFiniteLossError      the loss became NaN or infinite; no weight was touched
        └── ProcessError            another process of the run failed, is gone or hangs

The message of each is one line that names what was got, what was expected and what to do.
The command line prints that line alone; Python code gets the class to catch.
"""


class ModernBertError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(ModernBertError, ValueError):
    """A text, a token id or an argument that cannot be used."""


class DocumentError(InputError):
    """A corpus file, or one of its records, that cannot be read."""


class SettingsError(ModernBertError, ValueError):
    """A recipe or a setting with an unknown key, a wrong type or a bad value."""


class ConfigError(ModernBertError, ValueError):
    """The numbers of a model contradict each other, are absurd or are not supported."""


class TokenizerError(ModernBertError, ValueError):
    """A tokenizer file that is missing, broken or lacks a special token."""


class ModelFolderError(ModernBertError):
    """A model folder that is missing, incomplete or does not fit its config."""


class ExportError(ModernBertError):
    """A model that cannot be exported here, or whose export computes something else."""


class ResultError(ModernBertError):
    """A model gave results that are not finite numbers."""


class HubError(ModernBertError):
    """A folder that is not fit for the hub, or that the hub did not take."""


class ShardError(ModernBertError):
    """Token shards that are missing, truncated, changed or in a foreign format."""


class RunError(ModernBertError):
    """A run folder that belongs to another recipe or cannot be used."""


class CheckpointError(RunError):
    """A checkpoint that is torn, changed or of another run."""


class TrainingError(ModernBertError):
    """Training cannot go on; the message says from where it can be taken up."""


class NonFiniteLossError(TrainingError):
    """The loss or a gradient became NaN or infinite; the step was not taken."""


class ProcessError(TrainingError):
    """Another process of the run failed, is gone or hangs; the same command goes on from there."""


class ModernBertWarning(UserWarning):
    """Base of every warning of this package; the command line prints each as one line."""


class NativeKernelsWarning(ModernBertWarning):
    """The C kernels are not there, or not the best ones; one line says why and what to do."""


class GrowthWarning(ModernBertWarning):
    """A model is grown from one that is not at the right point of its training."""


class TruncationWarning(ModernBertWarning):
    """Texts were longer than the model reads, and were cut."""


class FolderWarning(ModernBertWarning):
    """Another folder than the one that was named was taken."""
