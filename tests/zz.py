import time, processes, sys, subprocess, tempfile
from digits import write_digits
from pathlib import Path
if __name__=="__main__":
    tmp=Path(tempfile.mkdtemp()); d=f"npz:{write_digits(tmp/'digits.npz')}"
    t=time.time(); print(processes.finished("--version")); print("first", time.time()-t)
    t=time.time(); print(processes.finished("--version")); print("second", time.time()-t)
    w=["prune","--model","coprune:resnet20@fashion-mnist","--data","fashion-mnist-sample" if 0 else "fashion-mnist","--keep-macs","0.5","--calibration","200","--threads","1","--latency-batches","1"]
    import resource
    for i in range(2):
        t=time.time(); 
        try: processes.finished(*w,"--out",tmp/f"a{i}")
        except AssertionError as e: print(str(e)[-300:])
        print("forked", time.time()-t, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime)
    t=time.time(); subprocess.run([sys.executable,"-m","coprune",*w,"--out",str(tmp/"b")],capture_output=True); print("sub", time.time()-t,resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime)
