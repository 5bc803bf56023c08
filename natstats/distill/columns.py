"""The meaning of every column in the tables of distillation runs and of their comparison.

See :mod:`natstats.runs.columns` for the columns of all other tables.
"""

from __future__ import annotations

from collections.abc import Mapping

from natstats.files.table_files import TableFile

__all__ = ["TABLES"]

_GAPS = {
    "gap_before": "absolute difference of the exponents of student and teacher, mean over pairs of "
    "layers, before training",
    "gap_after": "the same difference, after training",
    "distance_before": "mean distance of their spectra, before training",
    "distance_after": "mean distance of their spectra, after training",
}

_CLOSED = {
    "closed_exponent": "`gap_before` minus `gap_after`",
    "closed_distance": "`distance_before` minus `distance_after`",
}

_HISTORY = TableFile(
    "history.csv",
    "each epoch",
    {
        "stage": "`main`, or a stage that the method has before it",
        "epoch": "number of the epoch in its stage, from 1",
        "learning_rate": "learning rate at the end of the epoch",
        "loss": "mean of the weighted sum of all terms",
        "accuracy": "share of training images classified correctly",
        "eval_loss": "cross-entropy on the evaluation images; empty where nobody looked",
        "eval_accuracy": "share of evaluation images classified correctly",
        "seconds": "seconds of training up to here, breaks left out",
        "eval_images": "evaluation images that were looked at",
        "images_per_second": "training images per second",
        "memory_mib": "memory at its peak, MiB",
        "*": "mean value of the term of this name, without its weight",
    },
)

_GRADIENTS = TableFile(
    "gradients.csv",
    "each term and each epoch at which gradients were looked at",
    {
        "stage": "stage of the training",
        "epoch": "epoch of the stage",
        "term": "name of the term",
        "weight": "its weight in the loss",
        "norm": "norm of the gradient of the weighted term in the student's parameters",
        "ce_norm": "that of the cross-entropy",
        "cosine": "cosine of the angle between the two",
    },
)

_GAP = TableFile(
    "gap.csv",
    "each pair of layers",
    {
        "student_layer": "layer of the student",
        "teacher_layer": "layer of the teacher that it is compared with",
        "height": "of the maps that are compared, pixels",
        "width": "of the maps that are compared, pixels",
        "exponent_teacher": "exponent of the teacher's layer",
        "exponent_before": "exponent of the student's layer before training",
        "exponent_after": "exponent of the student's layer after training",
        "distance_before": "distance of their spectra before training",
        "distance_after": "distance of their spectra after training",
    },
)

_TABLE = TableFile(
    "table.csv",
    "each task and method, the most accurate first",
    {
        "task": "number of the task: student, images and split",
        "student": "name of the student",
        "teacher": "name of the teacher",
        "data": "name of the images",
        "split": "`test` or `held-out`",
        "label": "name of the method, with what tells it from others of that name",
        "method": "name of the method",
        "n_seeds": "trainings",
        "seeds": "their seeds",
        "n_of_one_class": "trainings whose student puts all images in one class",
        "n_images": "evaluation images",
        "accuracy": "mean accuracy after the last epoch",
        "sd": "standard deviation of the accuracy over seeds",
        "low": "lower end of the interval of the accuracy",
        "high": "upper end of the interval of the accuracy",
        "interval_of": "`seeds` where the interval is over seeds; `images` with one seed",
        "teacher_accuracy": "accuracy of the teacher on the same images",
        "top5": "share of images whose class is among the five highest scores",
        "agreement": "share of images that student and teacher put in one class",
        "ms_per_step": "milliseconds per step of training, median over seeds",
        "peak_memory_mib": "memory at its peak, MiB",
        "teacher_passes": "passes of the teacher in a step",
        "extra_parameters": "parameters that are trained beside the student's",
        "epochs": "epochs of the main stage",
        "epochs_before": "epochs of the stages before it",
        "memory_of": "whose memory it is: the device's or the process's",
        "epochs_total": "epochs of all stages",
        **_GAPS,
        **_CLOSED,
        "gain_*_low": "lower end of the interval of that gain",
        "gain_*_high": "upper end of the interval of that gain",
        "gain_*_p": "p-value of the test that the gain is zero",
        "gain_*_p_holm": "the same by Holm's rule, over the methods of a task",
        "gain_*": "accuracy less that of the method of this name, paired by seeds and images",
    },
)

_GAINS = TableFile(
    "gains.csv",
    "each method and each reference",
    {
        "task": "number of the task",
        "label": "name of the method, with what tells it from others of that name",
        "method": "name of the method",
        "reference": "method over which the gain is taken",
        "reference_label": "its name in full",
        "difference": "accuracy of the method less that of the reference",
        "low": "lower end of the interval of the difference",
        "high": "upper end of the interval of the difference",
        "p": "p-value of the test that the difference is zero",
        "p_corrected": "the same by Holm's rule, over the methods of a task and reference",
        "dof": "degrees of freedom of the test",
        "n_seeds": "seeds that both have",
        "n_left_out": "seeds that only one has",
        "n_images": "evaluation images",
        "test": "what the test rests on: seeds and images, or images where there is one seed",
        "reason": "why there is no test",
    },
)

_CONTRASTS = TableFile(
    "contrasts.csv",
    "each planned contrast, then the positive controls",
    {
        "task": "number of the task",
        "label": "the method",
        "reference_label": "the method over which it is taken",
        "control": "whether the row is a positive control",
        "difference": "accuracy of the first less that of the second",
        "low": "lower end of the interval for other seeds on these images",
        "high": "upper end of that interval",
        "p": "p-value for other seeds on these images",
        "p_corrected": "the same by Holm's rule, over the planned contrasts of a task",
        "dof": "degrees of freedom",
        "se": "standard error of the difference",
        "n_seeds": "seeds that both have",
        "n_left_out": "seeds that only one has",
        "n_pooled": "methods in the pooled variance",
        "error": "`pooled`, or `own` where seeds are few or the variances differ",
        "low_images": "lower end of the interval for other seeds and other images",
        "high_images": "upper end of that interval",
        "p_images": "p-value for other seeds and other images",
        "p_images_corrected": "the same by Holm's rule",
        "verdict": "what was found, in words",
        "reason": "why it could not be formed, or what is to be known of its error",
    },
)

_TERMS = TableFile(
    "terms.csv",
    "each method and term",
    {
        "term": "name of the term",
        "weight": "its weight in the loss",
        "ratio": "norm of its gradient over that of the cross-entropy, median over the main stage "
        "and seeds",
        "cosine": "cosine of the angle between the two, median",
        "task": "number of the task",
        "label": "name of the method, with what tells it from others of that name",
    },
)

_SEEDS = TableFile(
    "seeds.csv",
    "each training",
    {
        "task": "number of the task",
        "label": "name of the method, with what tells it from others of that name",
        "method": "name of the method",
        "seed": "seed of the training",
        "accuracy": "accuracy after the last epoch",
        "n_predicted": "classes that the student puts an image in",
        "is_of_one_class": "whether it puts all images in one class",
        **{name: _GAPS[name] for name in ("gap_before", "distance_before")},
        **{name: _GAPS[name] for name in ("gap_after", "distance_after")},
        **_CLOSED,
        "path": "folder of the run",
    },
)

TABLES: Mapping[str, tuple[TableFile, ...]] = {
    "A distillation run": (_HISTORY, _GRADIENTS, _GAP),
    "Methods of distillation compared": (_TABLE, _GAINS, _CONTRASTS, _TERMS, _SEEDS),
}
"""The tables, by the kind of result that holds them."""
