// A node of OpenSearch for the tests. Arguments: its directory, its HTTP port on 127.0.0.1, the name of its cluster.
// The runner's own main gives its node every role but the one that runs ingest pipelines.
import org.codelibs.opensearch.runner.OpenSearchRunner

def (directory, port, cluster) = args
def runner = new OpenSearchRunner()
runner.onBuild { number, settings ->
    settings.putList('node.roles', 'cluster_manager', 'data', 'ingest')
    settings.put('http.port', port)
    settings.put('network.host', '127.0.0.1')
    settings.put('discovery.type', 'single-node')
}
runner.build(OpenSearchRunner.newConfigs().basePath(directory).clusterName(cluster).numOfNode(1).disableESLogger())
Thread.currentThread().join()
