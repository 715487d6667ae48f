"""The published definitions, transcribed step by step: slow, and independent of saliency/."""

import numpy as np

EPS = 2.2204e-16


def trapezoid(y, x):
    return sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1))


def auc_judd_program(saliency_map, fixation_map):
    """AUC_Judd.m without jitter and without min-max, which moves no rank."""
    s, f = saliency_map.ravel(), fixation_map.ravel()
    fixated = np.sort(s[f > 0])[::-1]
    tp, fp = [0.0], [0.0]
    for i, threshold in enumerate(fixated, 1):
        above = np.sum(s >= threshold)
        tp.append(i / len(fixated))
        fp.append((above - i) / (len(s) - len(fixated)))
    return trapezoid(tp + [1], fp + [1])


def auc_judd_words(saliency_map, fixation_map, counts=None):
    """What the header of AUC_Judd.m says: shares of fixations and of other pixels at or above each fixated value."""
    s, f = saliency_map.ravel(), fixation_map.ravel() > 0
    fixated = s[f] if counts is None else np.repeat(s, counts.ravel())
    tp, fp = [0.0], [0.0]
    for threshold in sorted(set(fixated), reverse=True):
        tp.append(np.mean(fixated >= threshold))
        fp.append(np.mean(s[~f] >= threshold))
    return trapezoid(tp + [1], fp + [1])


def stepped_area(fixated, others, step=0.1):
    """One split of AUC_Borji.m and AUC_shuffled.m."""
    thresholds = np.arange(0, max(fixated.max(), others.max()) + 1e-12, step)[::-1]
    tp = [0.0, *(np.mean(fixated >= t) for t in thresholds), 1.0]
    fp = [0.0, *(np.mean(others >= t) for t in thresholds), 1.0]
    return trapezoid(tp, fp)


def mann_whitney(positives, negatives):
    """Probability that a positive is larger than a negative; ties count half."""
    pairs = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    return np.mean(pairs)


def nss(saliency_map, fixation_map):
    normalized = (saliency_map - saliency_map.mean()) / saliency_map.std()
    return normalized[fixation_map > 0].mean()


def sim(a, b):
    return np.minimum(a / a.sum(), b / b.sum()).sum()


def similarity_program(a, b):
    a, b = ((m - m.min()) / (m.max() - m.min()) for m in (a, b))
    return np.minimum(a / a.sum(), b / b.sum()).sum()


def kld(saliency_map, density):
    p, q = saliency_map / saliency_map.sum(), density / density.sum()
    return (q * np.log(EPS + q / (p + EPS))).sum()


def information_gain(saliency_map, fixation_map, baseline):
    p, b = saliency_map / saliency_map.sum(), baseline / baseline.sum()
    return (np.log2(EPS + p) - np.log2(EPS + b))[fixation_map > 0].mean()


def info_gain_program(saliency_map, fixation_map, baseline):
    p, b = ((m - m.min()) / (m.max() - m.min()) for m in (saliency_map, baseline))
    return information_gain(p, fixation_map, b)
