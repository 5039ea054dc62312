# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY migrations migrations
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin forge-dispatch \
    && cp target/release/forge-dispatch /usr/local/bin/

FROM debian:bookworm-slim
# Nothing is installed: certificate authorities and SQLite are in the program.
RUN useradd --system --uid 10001 --home-dir /var/lib/forge-dispatch forge \
    && install --directory --owner forge --group forge --mode 700 /var/lib/forge-dispatch/data
COPY --from=build /usr/local/bin/forge-dispatch /usr/local/bin/
USER forge
WORKDIR /var/lib/forge-dispatch
# The database and the master key of the embedded mode, and the certificate that the API makes.
VOLUME /var/lib/forge-dispatch/data
# Inside of a container the loopback reaches nobody.
ENV FORGE_API__LISTEN=0.0.0.0:8443
ENV FORGE_OPS__LISTEN=0.0.0.0:9464
EXPOSE 8443 9464
ENTRYPOINT ["forge-dispatch"]
CMD ["serve"]
