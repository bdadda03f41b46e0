"""k-means by scikit-learn: read the rows, fit, save the centers. Arguments: class, k, rows.npy, centers.npy."""

import sys

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans

rows = np.load(sys.argv[3])
if sys.argv[1] == "KMeans":
    model = KMeans(int(sys.argv[2]), n_init=1, random_state=0)
else:
    model = MiniBatchKMeans(int(sys.argv[2]), n_init=1, batch_size=4096, random_state=0)
np.save(sys.argv[4], model.fit(rows).cluster_centers_)
