"""Times of arrivals."""


def poisson(random, rate, until):
    """Independent arrivals, `rate` a second on average."""
    time, times = 0.0, []
    while (time := time + random.expovariate(rate)) < until:
        times.append(time)
    return times


def bursts(random, rate, until, factor=4.0, share=0.15, length=20.0):
    """A Markov-modulated Poisson process of two states. For the part `share` of the time, in bursts of `length` seconds
    on average, arrivals come `factor` times as often as on average; otherwise less often, so that the average is
    `rate`. `share` times `factor` is at most 1."""
    calm = rate * (1 - share * factor) / (1 - share)
    time, times, is_burst = 0.0, [], random.random() < share
    while time < until:
        mean = length if is_burst else length * (1 - share) / share
        end = min(until, time + random.expovariate(1 / mean))
        now = factor * rate if is_burst else calm
        while now > 0 and (time := time + random.expovariate(now)) < end:
            times.append(time)
        time, is_burst = end, not is_burst
    return times
