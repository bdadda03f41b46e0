"""The hyperparameters of the built-in algorithms as types: names, kinds and what each does.

Written from the algorithms' declarations by `python -m tests.sdk.declarations`; not to be edited.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Required

from sagesmith.sdk._settings import EstimatorSettings

__all__ = [
    "REQUIRED",
    "BlazingTextArguments",
    "FactorizationMachinesArguments",
    "IPInsightsArguments",
    "KMeansArguments",
    "KNNArguments",
    "LDAArguments",
    "LinearLearnerArguments",
    "PCAArguments",
    "RandomCutForestArguments",
    "XGBoostArguments",
]

REQUIRED: Final = {
    "blazingtext": ("mode",),
    "factorization-machines": ("num_factors", "predictor_type"),
    "ipinsights": ("num_entity_vectors", "vector_dim"),
    "kmeans": ("k",),
    "knn": ("k", "predictor_type"),
    "lda": ("num_topics",),
    "linear-learner": ("predictor_type",),
    "pca": ("num_components",),
    "randomcutforest": (),
    "xgboost": (),
}
"""The hyperparameters without a default that the data does not tell, by algorithm."""


class BlazingTextArguments(EstimatorSettings, total=False):
    """Settings, and the hyperparameters of blazingtext."""

    mode: Required[Literal["batch_skipgram", "skipgram", "cbow", "supervised"]]
    """What is learned, and how. Required."""
    batch_size: int
    """Words around a word that batch_skipgram looks at in one product. Default: 11."""
    buckets: int
    """Buckets that parts of words, or runs of words, are hashed to. Default: 2000000."""
    early_stopping: bool
    """Stop when accuracy on the validation channel gets no better. Default: false."""
    epochs: int
    """Passes over the text. Default: 5."""
    evaluation: bool
    """Compare the vectors to people's word pairs in the validation channel. Default: true."""
    learning_rate: float
    """Learning rate at the beginning. Default: 0.05."""
    max_char: int
    """Letters of the longest parts of words. Default: 6."""
    min_char: int
    """Letters of the shortest. Default: 3."""
    min_count: int
    """Words that occur less often are left out. Default: 5."""
    min_epochs: int
    """Epochs before stopping early. Default: 5."""
    negative_samples: int
    """Negative samples for each word. Default: 5."""
    patience: int
    """Epochs without improvement after which to stop early. Default: 4."""
    sampling_threshold: float
    """Words with a greater share of the text are often left out. Default: 0.0001."""
    subwords: bool
    """Learn vectors of parts of words, too. Default: false."""
    vector_dim: int
    """Length of vectors. Default: 100."""
    window_size: int
    """Words looked at on each side. Default: 5."""
    word_ngrams: int
    """Words of the longest runs of words. Default: 2."""


class FactorizationMachinesArguments(EstimatorSettings, total=False):
    """Settings, and the hyperparameters of factorization-machines."""

    feature_dim: int
    """Number of features. Required."""
    num_factors: Required[int]
    """Factors of each feature. Required."""
    predictor_type: Required[Literal["binary_classifier", "regressor"]]
    """What is predicted. Required."""
    epochs: int
    """Passes over the data. Default: 1."""
    mini_batch_size: int
    """Rows of a step, of all instances together. Default: 1000."""
    clip_gradient: float
    """Largest gradient; larger ones are cut."""
    eps: float
    """What keeps the optimizer from dividing by 0."""
    rescale_grad: float
    """What gradients, summed over the rows of a step, are multiplied with."""
    bias_init_method: Literal["normal", "uniform", "constant"]
    """How the bias begin. Default: normal."""
    bias_init_scale: float
    """With uniform: the bias begin between -scale and scale."""
    bias_init_sigma: float
    """With normal: the standard deviation with which the bias begin. Default: 0.01."""
    bias_init_value: float
    """With constant: what the bias begin with."""
    bias_lr: float
    """Learning rate of the bias. Default: 0.1."""
    bias_wd: float
    """Weight decay of the bias. Default: 0.01."""
    linear_init_method: Literal["normal", "uniform", "constant"]
    """How the weights of features begin. Default: normal."""
    linear_init_scale: float
    """With uniform: the weights of features begin between -scale and scale."""
    linear_init_sigma: float
    """With normal: the standard deviation with which the weights of features begin. Default: 0.01."""
    linear_init_value: float
    """With constant: what the weights of features begin with."""
    linear_lr: float
    """Learning rate of the weights of features. Default: 0.001."""
    linear_wd: float
    """Weight decay of the weights of features. Default: 0.001."""
    factors_init_method: Literal["normal", "uniform", "constant"]
    """How the factors begin. Default: normal."""
    factors_init_scale: float
    """With uniform: the factors begin between -scale and scale."""
    factors_init_sigma: float
    """With normal: the standard deviation with which the factors begin. Default: 0.001."""
    factors_init_value: float
    """With constant: what the factors begin with."""
    factors_lr: float
    """Learning rate of the factors. Default: 0.0001."""
    factors_wd: float
    """Weight decay of the factors. Default: 1e-05."""


class IPInsightsArguments(EstimatorSettings, total=False):
    """Settings, and the hyperparameters of ipinsights."""

    num_entity_vectors: Required[int]
    """Vectors that the entities' names are hashed to; twice the number of entities is enough. Required."""
    vector_dim: Required[int]
    """Length of vectors. Required."""
    batch_metrics_publish_interval: int
    """Batches after which speed and loss are logged. Default: 1000."""
    epochs: int
    """Passes over the data. Default: 10."""
    learning_rate: float
    """Adam's learning rate. Default: 0.001."""
    mini_batch_size: int
    """Pairs in a batch. Default: 10000."""
    num_ip_encoder_layers: int
    """Fully connected layers that an address's vector goes through. Default: 1."""
    random_negative_sampling_rate: int
    """Random addresses that each pair is held against. Default: 1."""
    shuffled_negative_sampling_rate: int
    """Addresses of other pairs of the batch that each pair is held against. Default: 1."""
    weight_decay: float
    """L2 regularization. Default: 1e-05."""


class KMeansArguments(EstimatorSettings, total=False):
    """Settings, and the hyperparameters of kmeans."""

    k: Required[int]
    """Number of clusters. Required."""
    feature_dim: int
    """Number of features. Required."""
    mini_batch_size: int
    """Rows in a batch. Default: 5000."""
    epochs: int
    """Passes over the data. Default: 1."""
    init_method: Literal["random", "kmeans++"]
    """How the first centers are chosen. Default: random."""
    extra_center_factor: int | Literal["auto"]
    """Centers that follow the data, for each of the k. Default: auto."""
    half_life_time_size: int
    """Rows after which a row counts half; 0 for never. Default: 0."""
    local_lloyd_init_method: Literal["kmeans++", "random"]
    """How the reduction to k centers begins. Default: kmeans++."""
    local_lloyd_max_iter: int
    """Steps of each reduction. Default: 300."""
    local_lloyd_num_trials: int | Literal["auto"]
    """Reductions, of which the best is kept. Default: auto."""
    local_lloyd_tol: float
    """Movement at which a reduction stops. Default: 0.0001."""
    eval_metrics: str | Sequence[str]
    """Metrics of the test channel. Default: msd."""
    force_dense: bool
    """Whether sparse rows are made dense. Default: true."""


class KNNArguments(EstimatorSettings, total=False):
    """Settings, and the hyperparameters of knn."""

    feature_dim: int
    """Number of features. Required."""
    k: Required[int]
    """Number of neighbors. Required."""
    predictor_type: Required[Literal["classifier", "regressor"]]
    """Whether the neighbors' labels vote or are averaged. Required."""
    sample_size: int
    """Rows to keep. Required."""
    dimension_reduction_type: Literal["sign", "fjlt"]
    """Random projection to fewer features."""
    dimension_reduction_target: int
    """Features to project to."""
    index_type: Literal["faiss.Flat", "faiss.IVFFlat", "faiss.IVFPQ"]
    """All rows compared, those of the nearest lists, or these in compressed form. Default: faiss.Flat."""
    index_metric: Literal["L2", "INNER_PRODUCT", "COSINE"]
    """What near means. Default: L2."""
    faiss_index_ivf_nlists: int | Literal["auto"]
    """Lists of the index; the square root of sample_size. Default: auto."""
    faiss_index_pq_m: int
    """Bytes that a row is compressed to."""
    mini_batch_size: int
    """Rows in a batch. Default: 5000."""


class LDAArguments(EstimatorSettings, total=False):
    """Settings, and the hyperparameters of lda."""

    num_topics: Required[int]
    """Topics to find. Required."""
    feature_dim: int
    """Words in the vocabulary. Required."""
    mini_batch_size: int
    """Documents in the corpus: so many are kept in memory; of more, every pass reads the files again. Required."""
    alpha0: float
    """Sum of the prior of the mixtures; small values make documents of few topics. Default: 1.0."""
    max_restarts: int
    """Beginnings of the tensor decomposition, of which the best is kept. Default: 10."""
    max_iterations: int
    """Steps of each. Default: 1000."""
    tol: float
    """Change of its error at which the decomposition ends. Default: 1e-08."""


class LinearLearnerArguments(EstimatorSettings, total=False):
    """Settings, and the hyperparameters of linear-learner."""

    predictor_type: Required[Literal["binary_classifier", "multiclass_classifier", "regressor"]]
    """What the label is: 0 or 1, a class from 0 to num_classes - 1, or a number. Required."""
    feature_dim: int | Literal["auto"]
    """Number of features. Default: auto."""
    num_classes: int
    """Number of classes. Default: 1."""
    mini_batch_size: int
    """Rows in a batch of the optimizers sgd, adam, rmsprop and adagrad. Default: 1000."""
    epochs: int
    """Most passes over the data. Default: 15."""
    use_bias: bool
    """Learn an intercept. Default: true."""
    binary_classifier_model_selection_criteria: Literal[
        "accuracy",
        "f1",
        "f_beta",
        "precision_at_target_recall",
        "recall_at_target_precision",
        "cross_entropy_loss",
        "loss_function",
    ]
    """By what the threshold and the best of the models are chosen. Default: accuracy."""
    target_recall: float
    """Recall for precision_at_target_recall. Default: 0.8."""
    target_precision: float
    """Precision for recall_at_target_precision. Default: 0.8."""
    positive_example_weight_mult: str
    """Weight of the rows of label 1. Default: 1.0."""
    balance_multiclass_weights: bool
    """Give each class the same weight in all. Default: false."""
    f_beta: float
    """beta of the F score. Default: 1.0."""
    accuracy_top_k: int
    """k of the top-k accuracy. Default: 3."""
    num_models: int | Literal["auto"]
    """Models trained side by side. Default: auto."""
    num_calibration_samples: int | Literal["auto"]
    """Rows that the threshold is chosen on. Default: auto."""
    init_method: Literal["uniform", "normal"]
    """First weights. Default: uniform."""
    init_scale: float
    """Bound of uniform first weights. Default: 0.07."""
    init_sigma: float
    """Standard deviation of normal first weights. Default: 0.01."""
    init_bias: float
    """First intercept. Default: 0.0."""
    optimizer: Literal["auto", "sgd", "adam", "rmsprop", "adagrad"]
    """auto: Newton steps, or adam where they do not fit. Default: auto."""
    loss: Literal[
        "auto",
        "logistic",
        "hinge_loss",
        "softmax_loss",
        "squared_loss",
        "absolute_loss",
        "eps_insensitive_squared_loss",
        "eps_insensitive_absolute_loss",
        "quantile_loss",
        "huber_loss",
    ]
    """What is minimized. Default: auto."""
    wd: float | Literal["auto"]
    """L2 regularization. Default: auto."""
    l1: float | Literal["auto"]
    """L1 regularization. Default: auto."""
    momentum: float | Literal["auto"]
    """Momentum of sgd and rmsprop. Default: auto."""
    learning_rate: float | Literal["auto"]
    """Step size. Default: auto."""
    beta_1: float | Literal["auto"]
    """Decay of adam's first moment. Default: auto."""
    beta_2: float | Literal["auto"]
    """Decay of adam's second moment. Default: auto."""
    bias_lr_mult: float | Literal["auto"]
    """Learning rate of the intercept, in all. Default: auto."""
    bias_wd_mult: float | Literal["auto"]
    """L2 regularization of the intercept, in wd. Default: auto."""
    use_lr_scheduler: bool
    """Let the learning rate become smaller. Default: true."""
    lr_scheduler_step: int | Literal["auto"]
    """Batches after which it does. Default: auto."""
    lr_scheduler_factor: float | Literal["auto"]
    """By what it is multiplied. Default: auto."""
    lr_scheduler_minimum_lr: float | Literal["auto"]
    """Its least value. Default: auto."""
    normalize_data: bool | Literal["auto"]
    """Scale features to standard deviation 1. Default: true."""
    normalize_label: bool | Literal["auto"]
    """Scale a regressor's labels likewise. Default: auto."""
    unbias_data: bool | Literal["auto"]
    """Shift features to mean 0. Default: auto."""
    unbias_label: bool | Literal["auto"]
    """Shift a regressor's labels likewise. Default: auto."""
    num_point_for_scaler: int
    """Rows that these are taken from. Default: 10000."""
    margin: float
    """Margin of hinge_loss. Default: 1.0."""
    quantile: float
    """Quantile of quantile_loss. Default: 0.5."""
    loss_insensitivity: float
    """Error that eps_insensitive losses forgive. Default: 0.01."""
    huber_delta: float
    """Error from which huber_loss grows evenly. Default: 1.0."""
    early_stopping_patience: int
    """Passes without improvement after which training ends. Default: 3."""
    early_stopping_tolerance: float
    """Relative improvement that counts. Default: 0.001."""


class PCAArguments(EstimatorSettings, total=False):
    """Settings, and the hyperparameters of pca."""

    num_components: Required[int]
    """Components to compute. Required."""
    feature_dim: int
    """Number of features. Required."""
    mini_batch_size: int
    """Rows in a batch; without influence on a job, which takes rows as they are read. Required."""
    algorithm_mode: Literal["regular", "randomized"]
    """randomized for rows so long that feature_dim x feature_dim numbers are too many. Default: regular."""
    extra_components: int
    """Directions followed beyond num_components, in the randomized mode; -1 for the larger of 10 and num_components. Default: -1."""
    subtract_mean: bool
    """Subtract the mean, in training and in inference. Default: true."""


class RandomCutForestArguments(EstimatorSettings, total=False):
    """Settings, and the hyperparameters of randomcutforest."""

    feature_dim: int
    """Number of features. Required."""
    num_trees: int
    """Trees. Default: 100."""
    num_samples_per_tree: int
    """Rows that each tree is grown from; about the inverse of the share of anomalies. Default: 256."""
    eval_metrics: str | Sequence[str]
    """Metrics of the test channel. Default: accuracy, precision_recall_fscore."""
    mini_batch_size: int
    """Rows in a batch. Default: 1000."""


class XGBoostArguments(EstimatorSettings, total=False):
    """Settings, and the hyperparameters of xgboost."""

    num_round: int
    """Number of boosting rounds. Required."""
    num_class: int
    """Number of classes, for multi:softmax and multi:softprob."""
    objective: Literal[
        "reg:squarederror",
        "reg:linear",
        "reg:squaredlogerror",
        "reg:logistic",
        "reg:pseudohubererror",
        "reg:absoluteerror",
        "reg:quantileerror",
        "reg:gamma",
        "reg:tweedie",
        "binary:logistic",
        "binary:logitraw",
        "binary:hinge",
        "count:poisson",
        "survival:cox",
        "survival:aft",
        "multi:softmax",
        "multi:softprob",
        "rank:pairwise",
        "rank:ndcg",
        "rank:map",
    ]
    """What is learned. Default: reg:squarederror."""
    eval_metric: str | Sequence[str]
    """Metrics logged after each round."""
    early_stopping_rounds: int
    """Rounds without progress after which to stop."""
    booster: Literal["gbtree", "gblinear", "dart"]
    """The kind of model. Default: gbtree."""
    verbosity: int
    """How much the library prints. Default: 1."""
    nthread: int
    """Threads; all of the instance's by default."""
    eta: float
    """Step size."""
    gamma: float
    """Least loss reduction of a split."""
    max_depth: int
    """Depth of a tree; 0 for no limit."""
    min_child_weight: float
    """Least weight in a leaf."""
    max_delta_step: float
    """Largest step of a leaf's weight."""
    subsample: float
    """Share of rows for a tree."""
    colsample_bytree: float
    """Share of columns for a tree."""
    colsample_bylevel: float
    """Share of columns for a level."""
    colsample_bynode: float
    """Share of columns for a split."""
    lambda_: float
    """L2 regularization."""
    alpha: float
    """L1 regularization."""
    tree_method: Literal["auto", "exact", "approx", "hist", "gpu_hist"]
    """How splits are found."""
    device: str
    """cpu or cuda."""
    sketch_eps: float
    """Fineness of the sketch of approx."""
    scale_pos_weight: float
    """Weight of the positive class."""
    updater: str
    """Tree updaters, separated by commas."""
    dsplit: Literal["row", "col"]
    """What instances hold."""
    refresh_leaf: int
    """Whether the refresh updater changes leaves."""
    process_type: Literal["default", "update"]
    """Build trees, or update given ones."""
    grow_policy: Literal["depthwise", "lossguide"]
    """Which node is split next."""
    max_leaves: int
    """Most leaves of a tree; 0 for no limit."""
    max_bin: int
    """Bins of a feature."""
    predictor: Literal["auto", "cpu_predictor", "gpu_predictor"]
    """What predicts."""
    sample_type: Literal["uniform", "weighted"]
    """How trees are dropped."""
    normalize_type: Literal["tree", "forest"]
    """How dropped trees count."""
    rate_drop: float
    """Share of trees dropped."""
    one_drop: int
    """Drop at least one tree."""
    skip_drop: float
    """Chance of dropping none."""
    lambda_bias: float
    """L2 regularization of the bias."""
    feature_selector: Literal["cyclic", "shuffle", "random", "greedy", "thrifty"]
    """The order of features."""
    top_k: int
    """Features to select."""
    tweedie_variance_power: float
    """Power of the variance."""
    huber_slope: float
    """Slope of the loss."""
    quantile_alpha: str
    """Quantile, or a list."""
    base_score: float
    """The prediction before the first round."""
    seed: int
    """Seed of all randomness. Default: 0."""
    num_parallel_tree: int
    """Trees built in each round."""
    monotone_constraints: str
    """Direction of each feature, as (1,0,-1)."""
    interaction_constraints: str
    """Features that may stand together."""
    aft_loss_distribution: Literal["normal", "logistic", "extreme"]
    """Distribution of the noise."""
    aft_loss_distribution_scale: float
    """Scale of the distribution."""
    sampling_method: Literal["uniform", "gradient_based"]
    """How rows are sampled (GPU)."""
    max_cat_to_onehot: int
    """Categories that are split one by one."""
    max_cached_hist_node: int
    """Histograms kept."""
    lambdarank_pair_method: Literal["mean", "topk"]
    """How pairs are chosen."""
    lambdarank_num_pair_per_sample: int
    """Pairs of each row."""
    deterministic_histogram: bool
    """Whether equal runs give equal trees."""
    single_precision_histogram: bool
    """Histograms of float32."""
    prob_buffer_row: float
    """Size of a buffer."""
    csv_weights: int
    """1: the second CSV column holds weights. Default: 0."""
    save_model_on_termination: bool
    """Keep the model so far when the job is stopped. Default: false."""
    _kfold: int
    """Folds of a cross-validation; one model for each."""
    _num_cv_round: int
    """Repetitions of the cross-validation."""
    use_dask_gpu_training: bool
    """Several GPUs by Dask. Default: false."""
    silent: int
    """Legacy: 1 prints nothing."""
