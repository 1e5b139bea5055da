# Sourced by the steps that install packages: where they come from, for this one step and never in the image.
# The secret `pip` lies at /etc/pip.conf, the secret `ca` (certificates of a proxy) and docker/wheels below.
export PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
wheels=/run/bevrepro/docker/wheels
if ! grep -qs '^find-links' /etc/pip.conf; then
    export PIP_FIND_LINKS="$wheels"
fi
if [ -s /run/bevrepro/ca.pem ]; then
    export PIP_CERT=/run/bevrepro/ca.pem SSL_CERT_FILE=/run/bevrepro/ca.pem UV_SYSTEM_CERTS=1
fi
