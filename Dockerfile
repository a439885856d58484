# Two stages: the kernels are compiled in the first, the second has no compiler.
FROM python:3.11-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY engine engine
COPY engine_ext engine_ext
COPY api api
RUN python -m venv /opt/mashtun && /opt/mashtun/bin/pip install --no-cache-dir .

FROM python:3.11-slim-bookworm
RUN useradd --create-home --uid 1000 mashtun
COPY --from=build /opt/mashtun /opt/mashtun
ENV PATH=/opt/mashtun/bin:$PATH
USER mashtun
WORKDIR /data
VOLUME /data
ENTRYPOINT ["mashtun"]
CMD ["--help"]
