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
RUN apt-get update && apt-get install --yes --no-install-recommends fonts-dejavu-core && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 mashtun && install --directory --owner=mashtun /data
COPY --from=build /opt/mashtun /opt/mashtun
ENV PATH=/opt/mashtun/bin:$PATH PYTHONUNBUFFERED=1 MASHTUN_HOST=0.0.0.0 MASHTUN_DATA=/data
USER mashtun
WORKDIR /data
VOLUME /data
EXPOSE 8570 1935
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-P", "-c", "import os, urllib.request as r; host, port = (os.environ.get(f'MASHTUN_{name}', '') for name in ('HOST', 'PORT')); host = '127.0.0.1' if host in ('', '0.0.0.0', '::') else f'[{host}]' if ':' in host else host; r.build_opener(r.ProxyHandler({})).open(f'http://{host}:{port if port.isdigit() else 8570}/healthz', timeout=2)"]
# Needs MASHTUN_USERNAME and MASHTUN_PASSWORD, or `serve --insecure`: it listens on every address.
ENTRYPOINT ["mashtun"]
CMD ["serve"]
