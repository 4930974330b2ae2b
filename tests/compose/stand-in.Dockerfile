# Prometheus and Pushgateway as their makers publish them, from images that were made another way: a folder for the volume
# that belongs to their user, and wget. From the published ones it makes the same again.
ARG IMAGE
FROM ${IMAGE}
USER 0
RUN mkdir -p /prometheus /pushgateway && chown 65534:65534 /prometheus /pushgateway \
    && if ! command -v wget; then \
        apt-get update -qq && apt-get install -qq --no-install-recommends busybox >/dev/null && ln -s busybox /bin/wget; \
    fi
USER 65534
